//! The steps of the first versions, which had gateways, devices and tokens.

/// In the order in which they are made.
pub(super) const STEPS: &[&str] = &[
    "
CREATE TABLE devices (
    id TEXT PRIMARY KEY,
    display_name TEXT NOT NULL,
    template TEXT,
    is_gateway INTEGER NOT NULL,
    enabled INTEGER NOT NULL,
    -- NULL: a leaf device that its gateway knows and central holds no keys of
    primary_key TEXT,
    secondary_key TEXT,
    manifest_id TEXT,
    revision INTEGER NOT NULL,
    last_seen_ms INTEGER
) WITHOUT ROWID;
CREATE TABLE relationships (
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    target TEXT NOT NULL UNIQUE,
    PRIMARY KEY (source, id)
) WITHOUT ROWID;
-- module '' is the device itself; touched: top-level key -> [unix ms, version] of its last change
CREATE TABLE twins (
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    section TEXT NOT NULL,
    version INTEGER NOT NULL,
    properties TEXT NOT NULL,
    touched TEXT NOT NULL,
    PRIMARY KEY (device, module, section)
) WITHOUT ROWID;
CREATE TABLE manifests (
    id TEXT PRIMARY KEY,
    display_name TEXT NOT NULL,
    data TEXT NOT NULL,
    revision INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE telemetry (
    id INTEGER PRIMARY KEY,
    device TEXT NOT NULL,
    module TEXT,
    enqueued_ms INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    bag TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX telemetry_by_device ON telemetry (device, id);
-- the highest sequence stored of each gateway's queue: what makes a resend known
CREATE TABLE watermarks (
    gateway TEXT NOT NULL,
    queue TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (gateway, queue)
) WITHOUT ROWID;
CREATE TABLE commands (
    row INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    gateway TEXT,
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    request TEXT NOT NULL,
    asked_ms INTEGER NOT NULL,
    deadline_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    outcome TEXT
);
CREATE INDEX commands_by_target ON commands (device, module, row);
CREATE TABLE tokens (
    hash TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    expires_ms INTEGER NOT NULL
) WITHOUT ROWID;
",
    "
-- sequence: see cloud_messages.rs; message: JSON with the body; taken_ms: when the device's gateway took it
CREATE TABLE cloud_messages (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    message TEXT NOT NULL,
    expires_ms INTEGER NOT NULL,
    taken_ms INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    ended TEXT
);
CREATE INDEX cloud_messages_by_device ON cloud_messages (device, sequence);
CREATE INDEX cloud_messages_by_expiry ON cloud_messages (expires_ms) WHERE ended IS NULL;
-- every message of the device up to this sequence is void
CREATE TABLE cloud_purges (
    device TEXT PRIMARY KEY,
    up_to INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE cloud_feedback (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    message_id TEXT NOT NULL,
    settlement TEXT NOT NULL
);
",
    "
-- JSON of devices::X509; NULL: the device proves itself by its keys
ALTER TABLE devices ADD COLUMN x509 TEXT;
",
    "
CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE enrollment_groups (
    id TEXT PRIMARY KEY,
    display_name TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    is_edge INTEGER NOT NULL,
    primary_key TEXT NOT NULL,
    secondary_key TEXT NOT NULL,
    revision INTEGER NOT NULL
) WITHOUT ROWID;
-- group_id '': the device enrolled with keys of its own
CREATE TABLE enrollments (
    device TEXT PRIMARY KEY,
    group_id TEXT NOT NULL,
    operation_id TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
) WITHOUT ROWID;
",
    "
-- what gateways' queues have lost; device and module '': not known
CREATE TABLE losses (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    gateway TEXT NOT NULL,
    queue TEXT NOT NULL,
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    cause TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    count INTEGER NOT NULL,
    from_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL,
    received_ms INTEGER NOT NULL
);
CREATE INDEX losses_by_gateway ON losses (gateway, id);
CREATE INDEX losses_by_device ON losses (device, id);
-- they outlive the losses that were trimmed
CREATE TABLE loss_totals (
    gateway TEXT NOT NULL,
    queue TEXT NOT NULL,
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    cause TEXT NOT NULL,
    count INTEGER NOT NULL,
    from_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL,
    PRIMARY KEY (gateway, queue, device, module, cause)
) WITHOUT ROWID;
CREATE INDEX loss_totals_by_device ON loss_totals (device);
-- the highest number stored of each gateway's queue, by the queue's id: by which a loss that is reported again is recognized
CREATE TABLE loss_marks (
    gateway TEXT NOT NULL,
    queue TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (gateway, queue)
) WITHOUT ROWID;
",
    "
-- JSON of enrollments::SigningCertificates; NULL: the group's keys enrol its devices
ALTER TABLE enrollment_groups ADD COLUMN x509 TEXT;
",
    "
-- messages below a watermark that are not stored: they were refused for themselves
CREATE TABLE refused (
    gateway TEXT NOT NULL,
    queue TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (gateway, queue, sequence)
) WITHOUT ROWID;
",
    "
-- commands that wait for a target that is away: until when, and when they were taken from here to be run
ALTER TABLE commands ADD COLUMN valid_until_ms INTEGER;
ALTER TABLE commands ADD COLUMN taken_ms INTEGER;
CREATE INDEX commands_waiting ON commands (device, row) WHERE outcome IS NULL AND valid_until_ms IS NOT NULL;
",
    "
-- one row, written by the health check
CREATE TABLE probe (id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL);
",
    "
-- one row: commits since the store was made; see record.rs
CREATE TABLE commits (id INTEGER PRIMARY KEY CHECK (id = 1), count INTEGER NOT NULL);
INSERT INTO commits (id, count) VALUES (1, 0);
INSERT OR IGNORE INTO settings (name, value) VALUES ('store_id', lower(hex(randomblob(16))));
-- commits that the record beside the store knew of and the store did not have
CREATE TABLE store_losses (
    id INTEGER PRIMARY KEY,
    found_ms INTEGER NOT NULL,
    commits INTEGER NOT NULL,
    messages INTEGER NOT NULL
);
",
    "
-- telemetry that is kept of each device: inserts are counted where they are made, deletes here
CREATE TABLE telemetry_usage (
    device TEXT PRIMARY KEY,
    messages INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO telemetry_usage (device, messages, bytes)
    SELECT device, count(*), sum(length(bag) + length(body) + 128) FROM telemetry GROUP BY device;
CREATE TRIGGER telemetry_deleted AFTER DELETE ON telemetry BEGIN
    UPDATE telemetry_usage SET messages = messages - 1, bytes = bytes - length(old.bag) - length(old.body) - 128
        WHERE device = old.device;
    DELETE FROM telemetry_usage WHERE device = old.device AND messages <= 0;
END;
",
    "
-- deleted and not registered since: what a gateway says of one does not bring it back
CREATE TABLE removed_devices (row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE);
",
    "
-- created_ms: NULL for tokens from before it was noted; used_ms: to the minute. A name tells one token from all others.
ALTER TABLE tokens ADD COLUMN created_ms INTEGER;
ALTER TABLE tokens ADD COLUMN used_ms INTEGER;
UPDATE tokens SET name = name || '-' || lower(hex(substr(hash, 1, 6)))
    WHERE name = '' OR name IN (SELECT name FROM tokens GROUP BY name HAVING count(*) > 1);
CREATE UNIQUE INDEX tokens_by_name ON tokens (name);
",
    "
-- the same in a store and in whatever it is restored from, unlike store_id: what gateways compare their queues with
INSERT OR IGNORE INTO settings (name, value) VALUES ('origin_id', lower(hex(randomblob(16))));
-- a queue is named id.epoch. moved: the telemetry row that moved it last, so that the oldest epochs can be forgotten
-- taken: how many of its messages were stored or refused
ALTER TABLE watermarks ADD COLUMN moved INTEGER NOT NULL DEFAULT 0;
ALTER TABLE watermarks ADD COLUMN taken INTEGER NOT NULL DEFAULT 0;
-- as the queue's taken was then
ALTER TABLE refused ADD COLUMN taken INTEGER NOT NULL DEFAULT 0;
-- when a loss of it was heard of last
ALTER TABLE loss_marks ADD COLUMN moved INTEGER NOT NULL DEFAULT 0;
",
    "
-- of one counter that never goes back (setting `generation`): which of the devices of an id this is, and which of its stays
-- behind a gateway. 0: from before there were any
ALTER TABLE devices ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE relationships ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
INSERT OR IGNORE INTO settings (name, value) VALUES ('generation', '0');
",
    "
-- registered by nothing but what a gateway said of it: an enrolment or an operator takes the id over
ALTER TABLE devices ADD COLUMN is_claim INTEGER NOT NULL DEFAULT 0;
UPDATE devices SET is_claim = 1 WHERE primary_key IS NULL AND x509 IS NULL
    AND id NOT IN (SELECT device FROM enrollments)
    AND id IN (SELECT target FROM relationships WHERE name = 'added at the gateway');
-- is_bound: central itself checked the proof. token_ends_at: unix seconds, of the newest token; 0: none
ALTER TABLE enrollments ADD COLUMN is_bound INTEGER NOT NULL DEFAULT 1;
ALTER TABLE enrollments ADD COLUMN token_ends_at INTEGER NOT NULL DEFAULT 0;
-- JSON list of the gateways through which devices may enrol by certificate
ALTER TABLE enrollment_groups ADD COLUMN gateways TEXT NOT NULL DEFAULT '[]';
",
    "
-- organizations: JSON of Organizations; endorsement_key: of a TPM, which then proves the device in place of keys and certificates
ALTER TABLE devices ADD COLUMN simulated INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN organizations TEXT NOT NULL DEFAULT '[]';
ALTER TABLE devices ADD COLUMN endorsement_key TEXT;
ALTER TABLE manifests ADD COLUMN organizations TEXT NOT NULL DEFAULT '[]';
-- the manifest that a gateway was given, as it was then: the stored one of its id may have changed, or it never had an id
CREATE TABLE assigned_manifests (
    device TEXT PRIMARY KEY,
    data TEXT NOT NULL
) WITHOUT ROWID;
",
    "
-- rows up to these ids are of earlier devices of this id, and are not shown as its own
ALTER TABLE devices ADD COLUMN telemetry_after INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN losses_after INTEGER NOT NULL DEFAULT 0;
-- which of the devices of this id the gateway had added whose word registered it; 0: not known
ALTER TABLE devices ADD COLUMN gateway_generation INTEGER NOT NULL DEFAULT 0;
-- modules that manifests have added since; those of older stores have no row and generation 0
CREATE TABLE modules (
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    generation INTEGER NOT NULL,
    telemetry_after INTEGER NOT NULL,
    PRIMARY KEY (device, module)
) WITHOUT ROWID;
",
    "
-- the newest value of each name that a device or module has sent, behind the messages; see last_values.rs. module '': the device
-- itself; component '': none. value: JSON as it was sent; NULL: too long, it is in its message
CREATE TABLE last_values (
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    component TEXT NOT NULL,
    name TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    enqueued_ms INTEGER NOT NULL,
    message INTEGER NOT NULL,
    value TEXT,
    PRIMARY KEY (device, module, component, name)
) WITHOUT ROWID;
CREATE TABLE last_value_counts (
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    names INTEGER NOT NULL,
    PRIMARY KEY (device, module)
) WITHOUT ROWID;
-- messages up to this id are of an earlier device or module of the name; module '/': of all modules
CREATE TABLE last_value_floors (
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    message INTEGER NOT NULL,
    PRIMARY KEY (device, module)
) WITHOUT ROWID;
-- one row. up_to: the last message that is in the rows; floors: how often one was set
CREATE TABLE last_value_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    up_to INTEGER NOT NULL,
    floors INTEGER NOT NULL
);
INSERT INTO last_value_state (id, up_to, floors) VALUES (1, 0, 0);
",
    "
-- JSON list of the roles that a token was made with, when it is more than its one role for the whole site
CREATE TABLE token_roles (
    name TEXT PRIMARY KEY,
    roles TEXT NOT NULL
) WITHOUT ROWID;
",
];
