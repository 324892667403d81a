//! Every metric of both programs. docs/operating/metrics.md lists them; `crates/edge-core/tests/metrics.rs` writes that list.
//!
//! Names that begin with `edgehub_` or `edgeAgent_` are those of Azure IoT Edge, with its labels. A label that holds a client's id or
//! a name that a client chooses is left out: whoever connects could make series without end.

use super::Exposer::{Both, Central, EdgeAgent};
use super::Metric;
use super::MetricKind::{Counter, Gauge, Histogram};

macro_rules! metrics {
    ($($constant:ident = $name:literal, $kind:ident, $unit:literal, [$($label:literal),*], $exposer:ident, $help:literal;)*) => {
        $(pub static $constant: Metric = Metric {
            name: $name,
            kind: $kind,
            unit: $unit,
            labels: &[$($label),*],
            exposer: $exposer,
            help: $help,
        };)*

        /// All of them.
        pub static ALL: &[&Metric] = &[$(&$constant),*];
    };
}

metrics! {
    MESSAGES_RECEIVED = "edgehub_messages_received_total", Counter, "messages", ["id"], EdgeAgent,
        "Telemetry received since the start: of each module of the deployment, of all leaf devices together, and of all local users together.";
    MESSAGES_SENT = "edgehub_messages_sent_total", Counter, "messages", ["to", "priority"], EdgeAgent,
        "Messages since the start that their destination has acknowledged or that were moved to the quarantine.";
    MESSAGE_SEND_SECONDS = "edgehub_message_send_duration_seconds", Histogram, "seconds", ["to"], EdgeAgent,
        "Time from sending a message to central to its acknowledgement, by which central has it on disk.";
    QUEUE_LENGTH = "edgehub_queue_length", Gauge, "messages", ["endpoint", "priority"], EdgeAgent,
        "Messages on disk that wait for a destination.";
    MESSAGES_DROPPED = "edgehub_messages_dropped_total", Counter, "messages", ["reason"], EdgeAgent,
        "Messages dropped since the start because no route took them (no_route) or because they expired (ttl_expiry).";
    CONNECTED_CLIENTS = "edgehub_connected_clients", Gauge, "clients", [], EdgeAgent,
        "Clients that are connected: modules, leaf devices and local users.";
    CONNECTS = "edgehub_client_connect_success_total", Counter, "connections", [], EdgeAgent,
        "Clients that connected and were authenticated since the start.";
    CONNECTS_FAILED = "edgehub_client_connect_failed_total", Counter, "connections", ["reason"], EdgeAgent,
        "Clients whose credentials were rejected since the start.";
    DISCONNECTS = "edgehub_client_disconnect_total", Counter, "connections", [], EdgeAgent,
        "Clients whose connection ended since the start.";
    AGENT_UPTIME = "edgeAgent_iotedged_uptime_seconds", Gauge, "seconds", [], EdgeAgent,
        "Time since edge-agent started.";
    HOST_UPTIME = "edgeAgent_host_uptime_seconds", Gauge, "seconds", [], EdgeAgent,
        "Time since the gateway started.";
    DISK_AVAILABLE = "edgeAgent_available_disk_space_bytes", Gauge, "bytes", ["disk_name"], EdgeAgent,
        "Free space of the file system that holds the data directory.";
    DISK_TOTAL = "edgeAgent_total_disk_space_bytes", Gauge, "bytes", ["disk_name"], EdgeAgent,
        "Size of the file system that holds the data directory.";
    AGENT_METADATA = "edgeAgent_metadata", Gauge, "0", ["edge_agent_version", "host_information"], EdgeAgent,
        "Always 0; the labels have the version of edge-agent, the operating system and the architecture.";

    QUEUE_BYTES = "lineside_queue_bytes", Gauge, "bytes", ["queue"], EdgeAgent,
        "Bytes of a queue on disk, with what is allocated ahead.";
    QUEUE_OLDEST = "lineside_queue_oldest_seconds", Gauge, "seconds", ["queue"], EdgeAgent,
        "How long the oldest message of a queue has waited; 0 for an empty queue.";
    QUEUE_STORED = "lineside_queue_stored_total", Counter, "messages", ["queue"], EdgeAgent,
        "Messages written to a queue since the start.";
    QUEUE_REFUSING = "lineside_queue_refusing", Gauge, "1 or 0", ["queue"], EdgeAgent,
        "1 if a queue rejected its last message because it was full or the disk was full.";
    MESSAGES_LOST = "lineside_messages_lost_total", Counter, "messages", ["queue", "cause"], EdgeAgent,
        "Messages that a queue lost since it was created, by cause.";
    LOSSES_UNREPORTED = "lineside_losses_unreported", Gauge, "messages", [], EdgeAgent,
        "Lost messages of which central does not know yet.";
    MESSAGES_PARTLY_REFUSED = "lineside_messages_partly_refused_total", Counter, "messages", [], EdgeAgent,
        "Messages acknowledged since the start although one of their queues was full and rejected its copy.";
    QUARANTINE_MESSAGES = "lineside_quarantine_messages", Gauge, "messages", [], EdgeAgent,
        "Messages in the quarantine, which upstream rejected because of their content.";
    UPSTREAM_CONNECTED = "lineside_upstream_connected", Gauge, "1 or 0", [], EdgeAgent,
        "1 while the gateway is connected to its upstream; missing if none is configured.";
    LINK_BYTES = "lineside_link_bytes_total", Counter, "bytes", ["cause"], EdgeAgent,
        "Bytes sent and received on the connection to upstream, by cause; counted anew each day.";
    LINK_LIMIT_BYTES = "lineside_link_limit_bytes", Gauge, "bytes", ["cause"], EdgeAgent,
        "Bytes that the budget allows in a day, of causes with a limit.";
    COMMANDS = "lineside_commands", Gauge, "commands", ["state"], EdgeAgent,
        "Commands that wait for their target, run, or have an answer that central does not know yet.";
    MODULE_RUNNING = "lineside_module_running", Gauge, "1 or 0", ["module_name"], EdgeAgent,
        "1 if a module of the deployment runs and is not unhealthy.";
    MODULE_RESTARTS = "lineside_module_restarts", Gauge, "restarts", ["module_name"], EdgeAgent,
        "Restarts of a module of the deployment that its restart policy counts now.";
    DEPLOYMENT_SETTLED = "lineside_deployment_settled", Gauge, "1 or 0", [], EdgeAgent,
        "1 if the containers are as the deployment wants them.";

    LOG_BYTES = "lineside_log_bytes", Gauge, "bytes", ["log"], Both,
        "Bytes on disk of a log that is not a queue.";
    LOG_SEGMENTS = "lineside_log_segments", Gauge, "files", ["log"], Both,
        "Segment files of a log or queue.";
    LOG_WRITTEN_BYTES = "lineside_log_written_bytes_total", Counter, "bytes", ["log"], Both,
        "Bytes written to the disk for a log or queue since it was opened.";
    LOG_SYNC_SECONDS = "lineside_log_sync_seconds", Histogram, "seconds", [], Both,
        "Time of one write to a log or queue and its fdatasync, before messages are acknowledged.";
    MQTT_SESSIONS = "lineside_mqtt_sessions", Gauge, "sessions", [], Both,
        "MQTT sessions, of clients that are connected and of those that may come back.";
    MQTT_REFUSALS = "lineside_mqtt_refusals_total", Counter, "events", ["cause"], Both,
        "Connections, logins, messages and sessions that the MQTT server refused, delayed, dropped or ended since the start.";
    BUILD_INFO = "lineside_build_info", Gauge, "1", ["program", "version"], Both,
        "Always 1; the labels have the program and its version.";
    PROCESS_START = "process_start_time_seconds", Gauge, "seconds", [], Both,
        "When the program started, as seconds since 1970.";
    PROCESS_CPU = "process_cpu_seconds_total", Counter, "seconds", [], Both,
        "CPU time of the program since its start.";
    PROCESS_MEMORY = "process_resident_memory_bytes", Gauge, "bytes", [], Both,
        "Memory of the program (resident set).";
    PROCESS_FILES = "process_open_fds", Gauge, "files", [], Both,
        "Open files and sockets of the program.";

    MQTT_CONNECTIONS = "lineside_mqtt_connections", Gauge, "connections", [], Central,
        "Clients that are connected: gateways, and devices that connect to central itself.";
    MQTT_CONNECTS = "lineside_mqtt_connects_total", Counter, "connections", [], Central,
        "Clients that connected and were authenticated since the start.";
    MQTT_DISCONNECTS = "lineside_mqtt_disconnects_total", Counter, "connections", [], Central,
        "Clients whose connection ended since the start.";
    INGEST_MESSAGES = "lineside_ingest_messages_total", Counter, "messages", ["result"], Central,
        "Telemetry messages since the start that were stored, or rejected.";
    INGEST_WAITING = "lineside_ingest_waiting_messages", Gauge, "messages", [], Central,
        "Telemetry messages that wait to be written.";
    INGEST_POINTS = "lineside_ingest_points_total", Counter, "points", [], Central,
        "Numbers that were added to time series since the start.";
    STORE_WAITING = "lineside_store_waiting_writes", Gauge, "writes", [], Central,
        "Writes that the store has not finished; a batch of telemetry is one write.";
    STORE_OLDEST = "lineside_store_oldest_write_seconds", Gauge, "seconds", [], Central,
        "How long the oldest unfinished write has waited.";
    STORE_COMMIT_SECONDS = "lineside_store_commit_seconds", Histogram, "seconds", [], Central,
        "Time of one transaction of the store, from its first statement to its commit on disk.";
    STORE_BYTES = "lineside_store_bytes", Gauge, "bytes", ["part"], Central,
        "Bytes of the database file, of its write-ahead log, and of the telemetry and time series that the quotas count.";
    STORE_FREE_BYTES = "lineside_store_free_bytes", Gauge, "bytes", [], Central,
        "Space that the store can still use: free on its file system, and unused within its file.";
    STORE_FAILING = "lineside_store_failing", Gauge, "1 or 0", [], Central,
        "1 if the last transaction failed or the disk is so full that telemetry is rejected.";
    HTTP_REQUESTS = "lineside_http_requests_total", Counter, "requests", ["method", "path", "status"], Central,
        "Requests of the REST API and the console since the start, by the path with placeholders.";
    EVENT_SUBSCRIBERS = "lineside_event_subscribers", Gauge, "subscribers", [], Central,
        "Open streams of live events, for example consoles in browsers.";
}
