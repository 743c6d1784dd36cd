//! rumqttc as the matrix drives it, MQTT 3.1.1 and 5: see doc.go for the lines it reads and writes.
use std::collections::{HashMap, VecDeque};
use std::io::{self, BufRead, Write};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

fn say(line: String) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Which message has which packet identifier. The library gives identifiers when it sends, in the order of publish.
#[derive(Default)]
struct Numbers {
    published: VecDeque<u32>,
    sent: HashMap<u16, u32>,
}

impl Numbers {
    fn sent(&mut self, pkid: u16) {
        if pkid != 0 && !self.sent.contains_key(&pkid) {
            if let Some(n) = self.published.pop_front() {
                self.sent.insert(pkid, n);
            }
        }
    }

    fn open(&self) -> usize {
        self.published.len() + self.sent.len()
    }

    fn acked(&mut self, pkid: u16) {
        if let Some(n) = self.sent.remove(&pkid) {
            say(format!("acked {n}"));
        }
    }
}

fn bursts(numbers: Arc<Mutex<Numbers>>, mut publish: impl FnMut(&str, u8, String)) {
    for line in io::stdin().lock().lines() {
        let line = line.unwrap();
        let w: Vec<&str> = line.split(' ').collect();
        let first: u32 = w[2].parse().unwrap();
        let count: u32 = w[3].parse().unwrap();
        for n in first..first + count {
            // With its window of 100 full when the connection is cut, the library forgets requests that wait behind it:
            // they are given identifiers that are in use, and only one such request is kept.
            while numbers.lock().unwrap().open() >= 90 {
                thread::sleep(Duration::from_millis(1));
            }
            numbers.lock().unwrap().published.push_back(n);
            publish(w[0], w[1].parse().unwrap(), n.to_string());
        }
    }
}

fn v4(host: &str, port: u16, client_id: &str, subscription: String) {
    use rumqttc::{Client, Event, MqttOptions, Outgoing, Packet, QoS};
    let mut options = MqttOptions::new(client_id, host, port);
    options.set_keep_alive(Duration::from_secs(20)).set_clean_session(false);
    let (client, mut connection) = Client::new(options, 10);
    let numbers = Arc::new(Mutex::new(Numbers::default()));
    let (mine, subscriber) = (numbers.clone(), client.clone());
    thread::spawn(move || {
        for event in connection.iter() {
            match event {
                Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                    say(format!("connected {}", ack.session_present as u8));
                    let _ = subscriber.try_subscribe(&subscription, QoS::AtLeastOnce);
                }
                Ok(Event::Incoming(Packet::SubAck(ack))) => say(format!("granted {:?}", ack.return_codes[0])),
                Ok(Event::Incoming(Packet::Publish(p))) => say(format!("message {}", String::from_utf8_lossy(&p.payload))),
                Ok(Event::Outgoing(Outgoing::Publish(pkid))) => mine.lock().unwrap().sent(pkid),
                Ok(Event::Incoming(Packet::PubAck(a))) => mine.lock().unwrap().acked(a.pkid),
                Ok(Event::Incoming(Packet::PubComp(a))) => mine.lock().unwrap().acked(a.pkid),
                Ok(_) => {}
                Err(e) => {
                    say(format!("lost {e}"));
                    thread::sleep(Duration::from_millis(500));
                }
            }
        }
    });
    let publisher = client.clone();
    bursts(numbers, |topic, qos, payload| {
        let qos = if qos == 2 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
        publisher.publish(topic, qos, false, payload).unwrap();
    });
    let _ = client.disconnect();
}

fn v5(host: &str, port: u16, client_id: &str, subscription: String) {
    use rumqttc::v5::mqttbytes::v5::Packet;
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::{Client, Event, MqttOptions};
    use rumqttc::Outgoing;
    let mut options = MqttOptions::new(client_id, host, port);
    options.set_keep_alive(Duration::from_secs(20)).set_clean_start(false).set_session_expiry_interval(Some(3600));
    let (client, mut connection) = Client::new(options, 10);
    let numbers = Arc::new(Mutex::new(Numbers::default()));
    let (mine, subscriber) = (numbers.clone(), client.clone());
    thread::spawn(move || {
        for event in connection.iter() {
            match event {
                Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                    say(format!("connected {}", ack.session_present as u8));
                    let _ = subscriber.try_subscribe(&subscription, QoS::AtLeastOnce);
                }
                Ok(Event::Incoming(Packet::SubAck(ack))) => say(format!("granted {:?}", ack.return_codes[0])),
                Ok(Event::Incoming(Packet::Publish(p))) => say(format!("message {}", String::from_utf8_lossy(&p.payload))),
                Ok(Event::Outgoing(Outgoing::Publish(pkid))) => mine.lock().unwrap().sent(pkid),
                Ok(Event::Incoming(Packet::PubAck(a))) => mine.lock().unwrap().acked(a.pkid),
                Ok(Event::Incoming(Packet::PubComp(a))) => mine.lock().unwrap().acked(a.pkid),
                Ok(Event::Incoming(Packet::Disconnect(d))) => say(format!("lost DISCONNECT {:?}", d.reason_code)),
                Ok(_) => {}
                Err(e) => {
                    say(format!("lost {e}"));
                    thread::sleep(Duration::from_millis(500));
                }
            }
        }
    });
    let publisher = client.clone();
    bursts(numbers, |topic, qos, payload| {
        let qos = if qos == 2 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
        publisher.publish(topic, qos, false, payload).unwrap();
    });
    let _ = client.disconnect();
}

fn main() {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).unwrap();
    let w: Vec<&str> = line.split_whitespace().collect();
    let port = w[1].parse().unwrap();
    match w[2] {
        "5" => v5(w[0], port, w[3], w[4].to_string()),
        _ => v4(w[0], port, w[3], w[4].to_string()),
    }
    thread::sleep(Duration::from_millis(500)); // the DISCONNECT is sent by the other thread
}
