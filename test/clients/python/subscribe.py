"""Subscribes with Eclipse Paho for Python.

Reads the job as a line of JSON from standard input, prints one JSON line for the
SUBACK and for each message, and disconnects when its input ends. Ends with status
1 and a line on standard error at the first error or warning.
"""

import base64
import json
import logging
import os
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions


class Run:
    """One connection that subscribes and receives."""

    def __init__(self, job):
        self.job = job
        self.sub = job["subscription"]
        self.lock = threading.Lock()  # guards leaving and disconnected
        self.leaving = False
        self.disconnected = threading.Event()
        self.client = self.make_client()

    def make_client(self):
        v5 = self.job["version"] == 5
        client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=self.job["client_id"],
            protocol=mqtt.MQTTv5 if v5 else mqtt.MQTTv311,
            clean_session=None if v5 else not self.sub.get("keep", False),
            reconnect_on_failure=False,
        )
        if self.job.get("username"):
            client.username_pw_set(self.job["username"], self.job.get("password"))
        client.enable_logger(self.logger())
        client.on_connect = self.on_connect
        client.on_disconnect = self.on_disconnect
        client.on_subscribe = self.on_subscribe
        client.on_message = self.on_message
        return client

    def logger(self):
        """A logger whose every warning is the run's failure."""
        run = self

        class Handler(logging.Handler):
            def emit(self, record):
                # After a DISCONNECT sent by another thread, the library's loop
                # looks once more for its socket and reports that as an error.
                with run.lock:
                    leaving = run.leaving
                if not leaving:
                    fail(f"{record.levelname}: {record.getMessage()}")

        logger = logging.getLogger("paho")
        logger.propagate = False
        logger.addHandler(Handler(logging.WARNING))
        return logger

    def on_connect(self, client, userdata, flags, reason, properties):
        if reason.is_failure:
            fail(f"CONNACK: {reason}")
        s, properties = self.sub, None
        options = {"qos": s["qos"]}
        if self.job["version"] == 5:
            options["noLocal"] = s.get("no_local", False)
            options["retainAsPublished"] = s.get("retain_as_published", False)
            filters = [(f, SubscribeOptions(**options)) for f in s["filters"]]
            if s.get("id"):
                properties = Properties(PacketTypes.SUBSCRIBE)
                properties.SubscriptionIdentifier = s["id"]
        else:
            filters = [(f, s["qos"]) for f in s["filters"]]
        client.subscribe(filters, properties=properties)

    def on_subscribe(self, client, userdata, mid, reasons, properties):
        show({"granted": [reason.value for reason in reasons]})

    def on_disconnect(self, client, userdata, flags, reason, properties):
        with self.lock:
            leaving = self.leaving
        if not leaving or reason.is_failure:
            fail(f"disconnected: {reason}")
        self.disconnected.set()

    def on_message(self, client, userdata, message):
        p = message.properties
        show(
            {
                "message": {
                    "topic": message.topic,
                    "payload": encode(message.payload),
                    "qos": message.qos,
                    "retain": message.retain,
                    "dup": message.dup,
                    "user_properties": getattr(p, "UserProperty", []),
                    "content_type": getattr(p, "ContentType", ""),
                    "response_topic": getattr(p, "ResponseTopic", ""),
                    "correlation_data": encode(getattr(p, "CorrelationData", b"")),
                    "expiry": getattr(p, "MessageExpiryInterval", 0),
                    "subscription_ids": getattr(p, "SubscriptionIdentifier", []),
                }
            }
        )
        if self.sub.get("answer") and hasattr(p, "ResponseTopic"):
            answer = Properties(PacketTypes.PUBLISH)
            if hasattr(p, "CorrelationData"):
                answer.CorrelationData = p.CorrelationData
            client.publish(p.ResponseTopic, message.payload, qos=1, properties=answer)

    def run(self):
        keep = {}
        if self.job["version"] == 5:
            keep["clean_start"] = not self.sub.get("keep", False)
            if self.sub.get("keep"):
                keep["properties"] = Properties(PacketTypes.CONNECT)
                keep["properties"].SessionExpiryInterval = 3600
        self.client.connect(self.job["host"], self.job["port"], **keep)
        self.client.loop_start()
        sys.stdin.read()  # until we are told to leave
        with self.lock:
            self.leaving = True
        self.client.disconnect()
        self.disconnected.wait()
        self.client.loop_stop()


def encode(b):
    return base64.b64encode(b).decode()


def show(event):
    print(json.dumps(event), flush=True)


def fail(why):
    """Ends the program from whichever thread."""
    sys.stderr.write(why + "\n")
    sys.stderr.flush()
    os._exit(1)


try:
    Run(json.loads(sys.stdin.readline())).run()
except Exception as e:
    sys.exit(f"{type(e).__name__}: {e}")
