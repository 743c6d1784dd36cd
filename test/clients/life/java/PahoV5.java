import org.eclipse.paho.mqttv5.client.*;
import org.eclipse.paho.mqttv5.client.persist.MemoryPersistence;
import org.eclipse.paho.mqttv5.common.*;
import org.eclipse.paho.mqttv5.common.packet.MqttProperties;

/** Eclipse Paho for Java, MQTT 5. */
class PahoV5 extends Driver implements MqttCallback {
    MqttAsyncClient client;

    void connect() throws Exception {
        client = new MqttAsyncClient("tcp://" + host + ":" + port, clientId, new MemoryPersistence());
        DisconnectedBufferOptions buffer = new DisconnectedBufferOptions();
        buffer.setBufferEnabled(true);
        buffer.setBufferSize(10000);
        client.setBufferOpts(buffer);
        client.setCallback(this);
        MqttConnectionOptions o = new MqttConnectionOptions();
        o.setCleanStart(false);
        o.setSessionExpiryInterval(3600L);
        o.setAutomaticReconnect(true);
        o.setAutomaticReconnectDelay(1, 1);
        o.setKeepAliveInterval(20);
        client.connect(o).waitForCompletion();
    }

    public void connectComplete(boolean reconnect, String uri) {
        say("connected", "?");
        try {
            client.subscribe(subscription, 1, null, new MqttActionListener() {
                public void onSuccess(IMqttToken t) { say("granted", t.getReasonCodes()[0]); }
                public void onFailure(IMqttToken t, Throwable e) { say("lost", "SUBSCRIBE:", e); }
            });
        } catch (MqttException e) {
            say("lost", "SUBSCRIBE:", e);
        }
    }

    public void disconnected(MqttDisconnectResponse r) { say("lost", r.getReturnCode(), r.getReasonString(), r.getException()); }
    public void mqttErrorOccurred(MqttException e) { say("lost", "error", e); }
    public void messageArrived(String topic, MqttMessage m) { say("message", new String(m.getPayload())); }
    public void deliveryComplete(IMqttToken token) { }
    public void authPacketArrived(int reason, MqttProperties p) { }

    void publish(String topic, int qos, int n) throws Exception {
        while (true) { // it refuses what goes beyond its window
            try {
                client.publish(topic, Integer.toString(n).getBytes(), qos, false, null, new MqttActionListener() {
                    public void onSuccess(IMqttToken t) { say("acked", n); }
                    public void onFailure(IMqttToken t, Throwable e) { say("dropped", n, e); }
                });
                return;
            } catch (MqttException e) {
                if (e.getReasonCode() != MqttClientException.REASON_CODE_MAX_INFLIGHT) {
                    throw e;
                }
                Thread.sleep(1);
            }
        }
    }

    void disconnect() throws Exception { client.disconnect().waitForCompletion(); }

    public static void main(String[] args) throws Exception { new PahoV5().run(); }
}
