import org.eclipse.paho.client.mqttv3.*;
import org.eclipse.paho.client.mqttv3.persist.MemoryPersistence;

/** Eclipse Paho for Java, MQTT 3.1.1. */
class PahoV3 extends Driver implements MqttCallbackExtended {
    MqttAsyncClient client;

    void connect() throws Exception {
        client = new MqttAsyncClient("tcp://" + host + ":" + port, clientId, new MemoryPersistence());
        DisconnectedBufferOptions buffer = new DisconnectedBufferOptions();
        buffer.setBufferEnabled(true);
        buffer.setBufferSize(10000);
        client.setBufferOpts(buffer);
        client.setCallback(this);
        MqttConnectOptions o = new MqttConnectOptions();
        o.setCleanSession(false);
        o.setAutomaticReconnect(true);
        o.setMaxReconnectDelay(1000);
        o.setKeepAliveInterval(20);
        o.setMaxInflight(100);
        client.connect(o).waitForCompletion();
    }

    public void connectComplete(boolean reconnect, String uri) {
        say("connected", "?");
        try {
            client.subscribe(subscription, 1, null, new IMqttActionListener() {
                public void onSuccess(IMqttToken t) { say("granted", t.getGrantedQos()[0]); }
                public void onFailure(IMqttToken t, Throwable e) { say("lost", "SUBSCRIBE:", e); }
            });
        } catch (MqttException e) {
            say("lost", "SUBSCRIBE:", e);
        }
    }

    public void connectionLost(Throwable cause) { say("lost", cause, cause.getCause()); }
    public void messageArrived(String topic, MqttMessage m) { say("message", new String(m.getPayload())); }
    public void deliveryComplete(IMqttDeliveryToken token) { }

    void publish(String topic, int qos, int n) throws Exception {
        while (true) { // it refuses what goes beyond its window
            try {
                client.publish(topic, Integer.toString(n).getBytes(), qos, false, null, new IMqttActionListener() {
                    public void onSuccess(IMqttToken t) { say("acked", n); }
                    public void onFailure(IMqttToken t, Throwable e) { say("dropped", n, e); }
                });
                return;
            } catch (MqttException e) {
                if (e.getReasonCode() != MqttException.REASON_CODE_MAX_INFLIGHT) {
                    throw e;
                }
                Thread.sleep(1);
            }
        }
    }

    void disconnect() throws Exception { client.disconnect().waitForCompletion(); }

    public static void main(String[] args) throws Exception { new PahoV3().run(); }
}
