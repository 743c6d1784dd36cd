"""Eclipse Paho for Python as the matrix drives it: see doc.go for the lines it reads and writes."""

import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

host, port, version, client_id, subscription = sys.stdin.readline().split()
v5 = version == "5"
lock = threading.Lock()  # guards standard output, numbers and early
numbers = {}  # packet identifier -> number of the message
early = set()  # packet identifiers acknowledged before publish() returned


def say(*words):
    with lock:
        print(*words, flush=True)


client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2,
    client_id=client_id,
    protocol=mqtt.MQTTv5 if v5 else mqtt.MQTTv311,
    clean_session=None if v5 else False,
)
client.max_queued_messages_set(0)
client.reconnect_delay_set(1, 1)


def on_connect(client, userdata, flags, reason, properties):
    if reason.is_failure:
        say("lost", "CONNACK", reason)
        return
    say("connected", int(flags.session_present))
    client.subscribe(subscription, 1)


def on_publish(client, userdata, mid, reason, properties):
    if reason.is_failure:
        say("fault", "refused:", reason)
    with lock:
        if mid in numbers:
            print("acked", numbers.pop(mid), flush=True)
        else:
            early.add(mid)


client.on_connect = on_connect
client.on_publish = on_publish
client.on_subscribe = lambda c, u, mid, reasons, p: say("granted", reasons[0].value)
client.on_disconnect = lambda c, u, flags, reason, p: say("lost", reason)
client.on_message = lambda c, u, m: say("message", m.payload.decode())

extra = {}
if v5:
    extra["clean_start"] = False
    extra["properties"] = Properties(PacketTypes.CONNECT)
    extra["properties"].SessionExpiryInterval = 3600
client.connect(host, int(port), 20, **extra)
client.loop_start()
for line in sys.stdin:
    topic, qos, first, count = line.split()
    for n in range(int(first), int(first) + int(count)):
        info = client.publish(topic, str(n), int(qos))
        with lock:
            if info.mid in early:
                early.remove(info.mid)
                print("acked", n, flush=True)
            else:
                numbers[info.mid] = n
client.disconnect()
client.loop_stop()
