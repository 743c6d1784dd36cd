// libmosquitto as the matrix drives it, MQTT 3.1.1 and 5.
#include "driver.h"
#include <mosquitto.h>
#include <mqtt_protocol.h>

// The number of each packet identifier; -1 is none, -2 one that was acknowledged before publish returned.
static int numbers[65536];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void on_connect(struct mosquitto *m, void *data, int code, int flags)
{
	if (code) {
		say("lost CONNACK %d", code);
		return;
	}
	say("connected %d", flags & 1);
	mosquitto_subscribe(m, NULL, subscription, 1);
}

static void on_disconnect(struct mosquitto *m, void *data, int code) { say("lost %s", mosquitto_strerror(code)); }

static void on_subscribe(struct mosquitto *m, void *data, int mid, int count, const int *granted) { say("granted %d", granted[0]); }

static void on_message(struct mosquitto *m, void *data, const struct mosquitto_message *message)
{
	say("message %.*s", message->payloadlen, (char *)message->payload);
}

static void on_publish(struct mosquitto *m, void *data, int mid)
{
	pthread_mutex_lock(&lock);
	int n = numbers[mid];
	numbers[mid] = n < 0 ? -2 : -1;
	pthread_mutex_unlock(&lock);
	if (n >= 0)
		say("acked %d", n);
}

int main(void)
{
	read_job();
	for (int i = 0; i < 65536; i++)
		numbers[i] = -1;
	mosquitto_lib_init();
	struct mosquitto *m = mosquitto_new(client_id, false, NULL);
	mosquitto_int_option(m, MOSQ_OPT_PROTOCOL_VERSION, version[0] == '5' ? MQTT_PROTOCOL_V5 : MQTT_PROTOCOL_V311);
	mosquitto_connect_callback_set(m, NULL);
	mosquitto_connect_with_flags_callback_set(m, on_connect);
	mosquitto_disconnect_callback_set(m, on_disconnect);
	mosquitto_subscribe_callback_set(m, on_subscribe);
	mosquitto_message_callback_set(m, on_message);
	mosquitto_publish_callback_set(m, on_publish);
	mosquitto_reconnect_delay_set(m, 1, 1, false);
	mosquitto_property *properties = NULL;
	if (version[0] == '5')
		mosquitto_property_add_int32(&properties, MQTT_PROP_SESSION_EXPIRY_INTERVAL, 3600);
	if (mosquitto_connect_bind_v5(m, host, port, 20, NULL, properties) || mosquitto_loop_start(m))
		return 1;
	char topic[256];
	int qos, first, count;
	while (read_burst(topic, &qos, &first, &count)) {
		for (int n = first; n < first + count; n++) {
			char payload[16];
			int mid, length = snprintf(payload, sizeof payload, "%d", n);
			int err = mosquitto_publish(m, &mid, topic, length, payload, qos, false);
			if (err && err != MOSQ_ERR_NO_CONN) { // then it is queued
				say("fault %s", mosquitto_strerror(err));
				continue;
			}
			pthread_mutex_lock(&lock);
			int early = numbers[mid] == -2;
			numbers[mid] = early ? -1 : n;
			pthread_mutex_unlock(&lock);
			if (early)
				say("acked %d", n);
		}
	}
	mosquitto_disconnect(m);
	mosquitto_loop_stop(m, false);
	return 0;
}
