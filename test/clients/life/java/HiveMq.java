import com.hivemq.client.mqtt.MqttClient;
import com.hivemq.client.mqtt.datatypes.MqttQos;
import com.hivemq.client.mqtt.mqtt3.Mqtt3AsyncClient;
import com.hivemq.client.mqtt.mqtt5.Mqtt5AsyncClient;
import java.util.concurrent.TimeUnit;

/** HiveMQ's client for Java, MQTT 3.1.1 and 5. */
class HiveMq extends Driver {
    Mqtt3AsyncClient v3;
    Mqtt5AsyncClient v5;

    void connect() throws Exception {
        if (version.equals("5")) {
            v5 = MqttClient.builder().useMqttVersion5().identifier(clientId).serverHost(host).serverPort(port)
                .automaticReconnect().initialDelay(500, TimeUnit.MILLISECONDS).maxDelay(1, TimeUnit.SECONDS).applyAutomaticReconnect()
                .addConnectedListener(c -> say("connected", "?"))
                .addDisconnectedListener(c -> say("lost", c.getCause())).buildAsync();
            v5.connectWith().cleanStart(false).sessionExpiryInterval(3600).keepAlive(20).send().get();
            v5.subscribeWith().topicFilter(subscription).qos(MqttQos.AT_LEAST_ONCE)
                .callback(p -> say("message", new String(p.getPayloadAsBytes()))).send()
                .thenAccept(ack -> say("granted", ack.getReasonCodes().get(0).getCode())).get();
            return;
        }
        v3 = MqttClient.builder().useMqttVersion3().identifier(clientId).serverHost(host).serverPort(port)
            .automaticReconnect().initialDelay(500, TimeUnit.MILLISECONDS).maxDelay(1, TimeUnit.SECONDS).applyAutomaticReconnect()
            .addConnectedListener(c -> say("connected", "?"))
            .addDisconnectedListener(c -> say("lost", c.getCause())).buildAsync();
        v3.connectWith().cleanSession(false).keepAlive(20).send().get();
        v3.subscribeWith().topicFilter(subscription).qos(MqttQos.AT_LEAST_ONCE)
            .callback(p -> say("message", new String(p.getPayloadAsBytes()))).send()
            .thenAccept(ack -> say("granted", ack.getReturnCodes().get(0).getCode())).get();
    }

    void publish(String topic, int qos, int n) {
        byte[] payload = Integer.toString(n).getBytes();
        MqttQos q = MqttQos.fromCode(qos);
        var sent = v5 != null
            ? v5.publishWith().topic(topic).qos(q).payload(payload).send().<Object>thenApply(r -> { r.getError().ifPresent(e -> { throw new RuntimeException(e); }); return r; })
            : v3.publishWith().topic(topic).qos(q).payload(payload).send().<Object>thenApply(r -> r);
        sent.whenComplete((r, e) -> { if (e == null) { say("acked", n); } else { say("fault", n, e); } });
    }

    void disconnect() throws Exception {
        if (v5 != null) {
            v5.disconnect().get();
        } else {
            v3.disconnect().get();
        }
    }

    public static void main(String[] args) throws Exception { new HiveMq().run(); }
}
