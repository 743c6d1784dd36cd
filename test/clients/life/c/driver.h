// What the drivers of C's libraries share: the lines they read and write. See doc.go.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <unistd.h>

static pthread_mutex_t out = PTHREAD_MUTEX_INITIALIZER;

static void say(const char *format, ...)
{
	va_list args;
	pthread_mutex_lock(&out);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	pthread_mutex_unlock(&out);
}

static char host[256], version[8], client_id[256], subscription[256];
static int port;

static void read_job(void)
{
	if (scanf("%255s %d %7s %255s %255s", host, &port, version, client_id, subscription) != 5)
		exit(1);
}

static int read_burst(char topic[256], int *qos, int *first, int *count)
{
	return scanf("%255s %d %d %d", topic, qos, first, count) == 4;
}
