//! rumqttd's codec of MQTT 5 as the other end.
