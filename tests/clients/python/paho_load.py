"""paho-mqtt as one end of a stream of numbered messages that has to survive its broker: see kill.rs of the tests.

The first line on stdin says how it connects and which end it is ("publisher" or "subscriber"). Both keep their session and
connect again by themselves; the subscriber subscribes once and never again.
"""

import json
import sys
import threading
import time

import paho.mqtt.client as mqtt

# Messages that were handed to paho and are not acknowledged: it keeps 20 of them in flight.
WINDOW = 40
# A line of progress for so many messages.
STRIDE = 50

printing = threading.Lock()


def tell(event, **fields):
    with printing:
        sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
        sys.stdout.flush()


class Publisher:
    def __init__(self, client, how):
        self.client, self.how = client, how
        self.room = threading.Semaphore(WINDOW)
        self.is_stopping = threading.Event()
        self.lock = threading.Lock()
        self.under_way, self.early, self.acknowledged = {}, set(), []
        client.on_publish = self.published

    def published(self, client, _, mid, code, properties):
        with self.lock:
            if mid in self.under_way:
                self.done(mid)
            else:
                # The answer was faster than `publish` returned.
                self.early.add(mid)

    def done(self, mid):
        self.acknowledged.append(self.under_way.pop(mid))
        self.room.release()
        if len(self.acknowledged) % STRIDE == 0:
            tell("progress", count=len(self.acknowledged))

    def run(self):
        number = 0
        while not self.is_stopping.is_set():
            time.sleep(self.how["pace_secs"])
            self.room.acquire()
            number += 1
            # Without our lock: paho holds its own while it calls `published`.
            sent = self.client.publish(self.how["topic"], str(number), self.how["qos"])
            with self.lock:
                self.under_way[sent.mid] = number
                if sent.mid in self.early:
                    self.early.remove(sent.mid)
                    self.done(sent.mid)

    def stop(self):
        self.is_stopping.set()
        # With all the room back nothing is under way.
        for _ in range(WINDOW):
            self.room.acquire()
        tell("result", acknowledged=sorted(self.acknowledged))


class Subscriber:
    def __init__(self, client, how):
        self.arrived, self.lock = {}, threading.Lock()
        client.on_message = self.message

    def message(self, client, _, message):
        number = int(message.payload)
        with self.lock:
            self.arrived[number] = self.arrived.get(number, 0) + 1

    def report(self):
        with self.lock:
            twice = sorted(number for number, count in self.arrived.items() if count > 1)
            tell("arrived", numbers=sorted(self.arrived), twice=twice)


def main():
    how = json.loads(sys.stdin.readline())
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2, client_id=how["client_id"], clean_session=False
    )
    client.username_pw_set(how["user"], how["password"])
    client.reconnect_delay_set(min_delay=1, max_delay=1)
    is_subscriber = how["end"] == "subscriber"
    end = (Subscriber if is_subscriber else Publisher)(client, how)
    first = threading.Event()

    def connected(client, _, flags, code, properties):
        tell("connected", session_present=flags.session_present, code=code.value)
        if is_subscriber and not first.is_set():
            client.subscribe(how["topic"], how["qos"])
        first.set()

    client.on_connect = connected
    client.on_subscribe = lambda *_: tell("ready")
    client.connect("127.0.0.1", how["port"])
    client.loop_start()
    first.wait()
    if not is_subscriber:
        threading.Thread(target=end.run, daemon=True).start()
    for line in sys.stdin:
        {"stop": getattr(end, "stop", None), "report": getattr(end, "report", None)}[json.loads(line)["do"]]()
    client.disconnect()
    client.loop_stop()


main()
