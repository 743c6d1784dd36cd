// Eclipse Paho for C as the matrix drives it, MQTT 3.1.1 and 5.
#include "driver.h"
#include <MQTTAsync.h>

static MQTTAsync client;
static int v5;

static void on_granted(void *context, MQTTAsync_successData *r) { say("granted %d", r->alt.qos); }
static void on_granted5(void *context, MQTTAsync_successData5 *r) { say("granted %d", r->reasonCode); }
static void on_refused(void *context, MQTTAsync_failureData *r) { say("lost SUBSCRIBE %d", r->code); }
static void on_refused5(void *context, MQTTAsync_failureData5 *r) { say("lost SUBSCRIBE %d", r->code); }

static void on_connected(void *context, char *cause)
{
	say("connected ?");
	MQTTAsync_responseOptions o = MQTTAsync_responseOptions_initializer;
	if (v5) {
		o.onSuccess5 = on_granted5;
		o.onFailure5 = on_refused5;
	} else {
		o.onSuccess = on_granted;
		o.onFailure = on_refused;
	}
	MQTTAsync_subscribe(client, subscription, 1, &o);
}

static void on_lost(void *context, char *cause) { say("lost %s", cause ? cause : ""); }

static void on_disconnected(void *context, MQTTProperties *properties, enum MQTTReasonCodes code) { say("lost DISCONNECT %d", code); }

static int on_message(void *context, char *topic, int topic_length, MQTTAsync_message *m)
{
	say("message %.*s", m->payloadlen, (char *)m->payload);
	MQTTAsync_freeMessage(&m);
	MQTTAsync_free(topic);
	return 1;
}

static void on_acked(void *context, MQTTAsync_successData *r) { say("acked %ld", (long)context); }
static void on_acked5(void *context, MQTTAsync_successData5 *r)
{
	if (r->reasonCode >= 0x80)
		say("fault refused %d", r->reasonCode);
	else
		say("acked %ld", (long)context);
}
static void on_failed(void *context, MQTTAsync_failureData *r) { say("dropped %ld %d", (long)context, r->code); }
static void on_failed5(void *context, MQTTAsync_failureData5 *r) { say("dropped %ld %d", (long)context, r->code); }

int main(void)
{
	read_job();
	v5 = version[0] == '5';
	char uri[300];
	snprintf(uri, sizeof uri, "tcp://%s:%d", host, port);
	MQTTAsync_createOptions create = MQTTAsync_createOptions_initializer;
	MQTTAsync_createOptions create5 = MQTTAsync_createOptions_initializer5;
	if (v5)
		create = create5;
	create.sendWhileDisconnected = 1;
	create.maxBufferedMessages = 10000;
	if (MQTTAsync_createWithOptions(&client, uri, client_id, MQTTCLIENT_PERSISTENCE_NONE, NULL, &create))
		return 1;
	MQTTAsync_setCallbacks(client, NULL, on_lost, on_message, NULL);
	MQTTAsync_setConnected(client, NULL, on_connected);
	MQTTAsync_setDisconnected(client, NULL, on_disconnected);
	MQTTAsync_connectOptions o = MQTTAsync_connectOptions_initializer;
	MQTTAsync_connectOptions o5 = MQTTAsync_connectOptions_initializer5;
	MQTTProperties properties = MQTTProperties_initializer;
	if (v5) {
		MQTTProperty expiry = {.identifier = MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL, .value.integer4 = 3600};
		MQTTProperties_add(&properties, &expiry);
		o = o5;
		o.cleanstart = 0;
		o.connectProperties = &properties;
	} else {
		o.cleansession = 0;
	}
	o.keepAliveInterval = 20;
	o.automaticReconnect = 1;
	o.minRetryInterval = 1;
	o.maxRetryInterval = 1;
	o.maxInflight = 100;
	if (MQTTAsync_connect(client, &o))
		return 1;
	char topic[256];
	int qos, first, count;
	while (read_burst(topic, &qos, &first, &count)) {
		for (int n = first; n < first + count; n++) {
			char payload[16];
			int length = snprintf(payload, sizeof payload, "%d", n);
			MQTTAsync_responseOptions r = MQTTAsync_responseOptions_initializer;
			r.context = (void *)(long)n;
			if (v5) {
				r.onSuccess5 = on_acked5;
				r.onFailure5 = on_failed5;
			} else {
				r.onSuccess = on_acked;
				r.onFailure = on_failed;
			}
			int err;
			// It refuses what goes beyond its window.
			while ((err = MQTTAsync_send(client, topic, length, payload, qos, 0, &r)) == MQTTASYNC_MAX_MESSAGES_INFLIGHT)
				usleep(1000);
			if (err)
				say("fault %d", err);
		}
	}
	MQTTAsync_disconnectOptions d = MQTTAsync_disconnectOptions_initializer;
	MQTTAsync_disconnectOptions d5 = MQTTAsync_disconnectOptions_initializer5;
	if (v5)
		d = d5;
	d.timeout = 1000;
	MQTTAsync_disconnect(client, &d);
	while (MQTTAsync_isConnected(client))
		usleep(10000);
	return 0;
}
