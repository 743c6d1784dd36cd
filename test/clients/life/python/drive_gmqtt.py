"""gmqtt as the matrix drives it: see doc.go for the lines it reads and writes."""

import asyncio
import collections
import sys

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311
from gmqtt.storage import HeapPersistentStorage


def say(*words):
    print(*words, flush=True)


class Storage(HeapPersistentStorage):
    """Where the library keeps what is not acknowledged. It has no other word for an acknowledgement."""

    def __init__(self):
        super().__init__()
        self.published = collections.deque()  # numbers of messages in the order of publish()
        self.numbers = {}  # packet identifier -> number of the message

    async def push_message(self, mid, raw_package):
        if mid not in self.numbers:
            self.numbers[mid] = self.published.popleft()
        await super().push_message(mid, raw_package)

    async def remove_message_by_mid(self, mid):
        if mid in self.numbers:
            say("acked", self.numbers.pop(mid))
        await super().remove_message_by_mid(mid)


async def main():
    loop = asyncio.get_running_loop()

    async def read():
        return await loop.run_in_executor(None, sys.stdin.readline)

    host, port, version, client_id, subscription = (await read()).split()
    v5 = version == "5"
    options = {"session_expiry_interval": 3600} if v5 else {}
    storage = Storage()
    client = gmqtt.Client(client_id, clean_session=False, persistent_storage=storage, **options)
    client.set_config({"reconnect_retries": gmqtt.constants.UNLIMITED_RECONNECTS, "reconnect_delay": 1})

    def on_connect(client, flags, rc, properties):
        say("connected", int(flags) & 1)
        client.subscribe(subscription, qos=1)

    def on_message(client, topic, payload, qos, properties):
        say("message", payload.decode())
        return 0

    client.on_connect = on_connect
    client.on_message = on_message
    client.on_subscribe = lambda client, mid, qos, properties: say("granted", qos[0])
    client.on_disconnect = lambda client, packet, exc=None: say("lost", exc)
    await client.connect(host, int(port), keepalive=20, version=MQTTv50 if v5 else MQTTv311)
    while line := await read():
        topic, qos, first, count = line.split()
        for n in range(int(first), int(first) + int(count)):
            storage.published.append(n)
            client.publish(topic, str(n), qos=int(qos))
            await asyncio.sleep(0)
    await client.disconnect()


asyncio.run(main())
