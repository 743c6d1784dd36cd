"""Publishes a job with Eclipse Paho for Python.

Reads the job as JSON from standard input, prints one JSON line per
acknowledgement, and ends with status 1 and a line on standard error at the
first error or warning.
"""

import base64
import json
import logging
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


class Run:
    """One connection that publishes all messages of a job."""

    def __init__(self, job):
        self.job = job
        # Guards the fields below. Never held while calling the library, which
        # calls back under locks of its own. Reentrant, for fail().
        self.changed = threading.Condition(threading.RLock())
        self.connected = False
        self.leaving = False
        self.disconnected = False
        self.failure = None
        self.indexes = {}  # packet identifier -> message index, not yet acknowledged
        self.reasons = {}  # packet identifier -> acknowledgement that came before publish() returned
        self.acked = 0
        self.client = self.make_client()

    def make_client(self):
        protocol = {4: mqtt.MQTTv311, 5: mqtt.MQTTv5}[self.job["version"]]
        client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=self.job["client_id"],
            protocol=protocol,
            reconnect_on_failure=False,
        )
        if self.job.get("username"):
            client.username_pw_set(self.job["username"], self.job.get("password"))
        client.enable_logger(self.logger())
        client.on_connect = self.on_connect
        client.on_disconnect = self.on_disconnect
        client.on_publish = self.on_publish
        return client

    def logger(self):
        """A logger whose every warning is the run's failure."""
        run = self

        class Handler(logging.Handler):
            def emit(self, record):
                # After a DISCONNECT sent by another thread, the library's loop
                # looks once more for its socket and reports that as an error.
                with run.changed:
                    if not run.disconnected:
                        run.fail(f"{record.levelname}: {record.getMessage()}")

        logger = logging.getLogger("paho")
        logger.propagate = False
        logger.addHandler(Handler(logging.WARNING))
        return logger

    def fail(self, why):
        with self.changed:
            self.failure = self.failure or why
            self.changed.notify_all()

    def on_connect(self, client, userdata, flags, reason, properties):
        if reason.is_failure:
            self.fail(f"CONNACK: {reason}")
        with self.changed:
            self.connected = True
            self.changed.notify_all()

    def on_disconnect(self, client, userdata, flags, reason, properties):
        with self.changed:
            if not self.leaving or reason.is_failure:
                self.fail(f"disconnected: {reason}")
            self.disconnected = True  # the last word, also on failures
            self.changed.notify_all()

    def on_publish(self, client, userdata, mid, reason, properties):
        with self.changed:
            if mid in self.indexes:
                self.acknowledge(self.indexes.pop(mid), reason)
            else:
                self.reasons[mid] = reason

    def acknowledge(self, index, reason):
        print(json.dumps({"index": index, "reason": reason.value}), flush=True)
        if reason.is_failure:
            self.fail(f"message {index} refused: {reason}")
        self.acked += 1
        self.changed.notify_all()

    def wait(self, condition):
        """Waits for the condition and raises the failure if one comes first."""
        with self.changed:
            self.changed.wait_for(lambda: self.failure or condition())
            if self.failure:
                raise RuntimeError(self.failure)

    def properties(self, message):
        if self.job["version"] != 5:
            return None
        p = Properties(PacketTypes.PUBLISH)
        if message.get("user_properties"):
            p.UserProperty = [tuple(pair) for pair in message["user_properties"]]
        if message.get("content_type"):
            p.ContentType = message["content_type"]
        if message.get("response_topic"):
            p.ResponseTopic = message["response_topic"]
        if message.get("correlation_data"):
            p.CorrelationData = base64.b64decode(message["correlation_data"])
        if message.get("expiry"):
            p.MessageExpiryInterval = message["expiry"]
        return p

    def publish(self, index, message):
        info = self.client.publish(
            message["topic"],
            base64.b64decode(message["payload"] or ""),
            qos=self.job["qos"],
            retain=message.get("retain", False),
            properties=self.properties(message),
        )
        if info.rc != mqtt.MQTT_ERR_SUCCESS:
            raise RuntimeError(f"cannot publish message {index}: {info.rc!r}")
        with self.changed:
            if info.mid in self.reasons:
                self.acknowledge(index, self.reasons.pop(info.mid))
            else:
                self.indexes[info.mid] = index

    def run(self):
        messages = self.job["messages"] or []
        self.client.connect(self.job["host"], self.job["port"])
        self.client.loop_start()
        self.wait(lambda: self.connected)
        for index, message in enumerate(messages):
            self.publish(index, message)
        self.wait(lambda: self.acked == len(messages))
        with self.changed:
            self.leaving = True
        self.client.disconnect()
        self.wait(lambda: self.disconnected)
        self.client.loop_stop()


try:
    Run(json.load(sys.stdin)).run()
except Exception as e:
    sys.exit(f"{type(e).__name__}: {e}")
