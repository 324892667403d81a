//! The steps since the version that has users.

/// In the order in which they are made.
pub(super) const STEPS: &[&str] = &[
    "
-- roles: JSON list of RoleAssignment as they were written, empty when it is the one role; password: Argon2id in PHC form, NULL: the
-- user cannot sign in with one
CREATE TABLE users (
    id TEXT PRIMARY KEY COLLATE NOCASE,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    role TEXT NOT NULL,
    roles TEXT NOT NULL DEFAULT '[]',
    password TEXT,
    created_ms INTEGER NOT NULL,
    signed_in_ms INTEGER,
    organization TEXT NOT NULL DEFAULT 'root'
) WITHOUT ROWID;
-- by the hash of the secret that the browser has
CREATE TABLE sessions (
    hash TEXT PRIMARY KEY,
    user TEXT NOT NULL COLLATE NOCASE REFERENCES users (id) ON DELETE CASCADE,
    created_ms INTEGER NOT NULL,
    used_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_by_user ON sessions (user, used_ms);
-- who made which change, and sign-ins; see audit. class: rows are deleted for new ones of their class only;
-- status: NULL: no answer was given
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    class TEXT NOT NULL,
    who TEXT NOT NULL,
    kind TEXT NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    status INTEGER,
    address TEXT NOT NULL,
    before TEXT,
    after TEXT,
    organization TEXT NOT NULL DEFAULT 'root'
);
CREATE INDEX audit_by_class ON audit (class, id);
CREATE INDEX audit_by_time ON audit (at_ms);
",
    "
-- the orders of the list of devices
CREATE INDEX devices_by_name ON devices (display_name COLLATE NOCASE, id);
CREATE INDEX devices_by_last_seen ON devices (ifnull(last_seen_ms, 0), id);
-- what changed, for those who watch; see changes.rs. kind: device, command or twin; item: the command's row, or the section
CREATE TABLE changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    item TEXT NOT NULL
);
CREATE TRIGGER changes_bounded AFTER INSERT ON changes BEGIN DELETE FROM changes WHERE id <= new.id - 20000; END;
CREATE TRIGGER devices_inserted AFTER INSERT ON devices BEGIN
    INSERT INTO changes (kind, device, module, item) VALUES ('device', new.id, '', '');
END;
CREATE TRIGGER devices_updated AFTER UPDATE ON devices BEGIN
    INSERT INTO changes (kind, device, module, item) VALUES ('device', new.id, '', '');
END;
CREATE TRIGGER devices_deleted AFTER DELETE ON devices BEGIN
    INSERT INTO changes (kind, device, module, item) VALUES ('device', old.id, '', '');
END;
CREATE TRIGGER relationships_inserted AFTER INSERT ON relationships BEGIN
    INSERT INTO changes (kind, device, module, item) VALUES ('device', new.target, '', '');
END;
CREATE TRIGGER relationships_updated AFTER UPDATE ON relationships BEGIN
    INSERT INTO changes (kind, device, module, item) VALUES ('device', old.target, '', ''), ('device', new.target, '', '');
END;
CREATE TRIGGER relationships_deleted AFTER DELETE ON relationships BEGIN
    INSERT INTO changes (kind, device, module, item) VALUES ('device', old.target, '', '');
END;
CREATE TRIGGER twins_written AFTER INSERT ON twins BEGIN
    INSERT INTO changes (kind, device, module, item) VALUES ('twin', new.device, new.module, new.section);
END;
CREATE TRIGGER commands_inserted AFTER INSERT ON commands BEGIN
    INSERT INTO changes (kind, device, module, item) VALUES ('command', new.device, new.module, new.id);
END;
CREATE TRIGGER commands_ended AFTER UPDATE OF outcome ON commands BEGIN
    INSERT INTO changes (kind, device, module, item) VALUES ('command', new.device, new.module, new.id);
END;
",
    "
-- numbers over time, behind the messages; see series.rs. module '': the device itself; component '': none
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    component TEXT NOT NULL,
    name TEXT NOT NULL,
    UNIQUE (device, module, component, name)
);
-- a higher id corrects lower ones. level 0: as it came; 1: compacted, with roll-ups, and those of a series share no times
CREATE TABLE series_chunks (
    id INTEGER PRIMARY KEY,
    series INTEGER NOT NULL,
    level INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    points INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    rollup BLOB NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX series_chunks_by_time ON series_chunks (series, level, first_ms);
CREATE INDEX series_chunks_by_end ON series_chunks (last_ms) WHERE level = 1;
-- what the chunks of each device take
CREATE TABLE series_usage (
    device TEXT PRIMARY KEY,
    bytes INTEGER NOT NULL,
    points INTEGER NOT NULL
) WITHOUT ROWID;
-- numbers that were left out, because their sender has as many names as it may; name: the last one
CREATE TABLE series_refused (
    device TEXT NOT NULL, module TEXT NOT NULL, points INTEGER NOT NULL, name TEXT NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (device, module)
) WITHOUT ROWID;
-- messages up to this id are of an earlier device or module of the name; module '/': of all modules
CREATE TABLE series_floors (
    device TEXT NOT NULL, module TEXT NOT NULL, message INTEGER NOT NULL,
    PRIMARY KEY (device, module)
) WITHOUT ROWID;
INSERT INTO series_floors (device, module, message) SELECT id, '/', telemetry_after FROM devices WHERE telemetry_after > 0;
INSERT INTO series_floors (device, module, message) SELECT device, module, telemetry_after FROM modules WHERE telemetry_after > 0;
-- one row. up_to: the last message whose points are in the chunks; floors: how often one was set
CREATE TABLE series_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    up_to INTEGER NOT NULL,
    floors INTEGER NOT NULL
);
INSERT INTO series_state (id, up_to, floors) VALUES (1, 0, 0);
",
    "
-- what who names; kind: what was asked for
ALTER TABLE audit ADD COLUMN who_kind TEXT NOT NULL DEFAULT 'nobody';
",
    "
-- auto_approve 0: an unknown device that enrols by the group waits for an operator; is_waiting 1: this device does
ALTER TABLE enrollment_groups ADD COLUMN auto_approve INTEGER NOT NULL DEFAULT 1; ALTER TABLE devices ADD COLUMN is_waiting INTEGER NOT NULL DEFAULT 0;
",
    "
-- document: JSON of templates::TemplateDocument, the capability model as it was given
CREATE TABLE device_templates (
    id TEXT PRIMARY KEY,
    display_name TEXT NOT NULL,
    document TEXT NOT NULL,
    organization TEXT NOT NULL DEFAULT 'root',
    revision INTEGER NOT NULL
) WITHOUT ROWID;
",
    "
-- total, done, failed: lines of a file; ended_ms NULL: it runs, or central ended before it did
CREATE TABLE operations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    title TEXT NOT NULL,
    organization TEXT NOT NULL DEFAULT 'root',
    who TEXT NOT NULL,
    started_ms INTEGER NOT NULL, ended_ms INTEGER,
    total INTEGER NOT NULL, done INTEGER NOT NULL, failed INTEGER NOT NULL
);
CREATE TABLE operation_faults (
    operation INTEGER NOT NULL, line INTEGER NOT NULL,
    device TEXT, why TEXT NOT NULL,
    PRIMARY KEY (operation, line)
) WITHOUT ROWID;
",
    "
-- what central keeps of a device and never sends to it; value: JSON
CREATE TABLE cloud_properties (
    device TEXT NOT NULL, name TEXT NOT NULL,
    value TEXT NOT NULL, changed_ms INTEGER NOT NULL,
    PRIMARY KEY (device, name)
) WITHOUT ROWID;
",
    "-- of messages that are written in parts: the last of them, and the last series that knows it, as JSON; NULL: there are none
ALTER TABLE series_state ADD COLUMN part_up_to INTEGER; ALTER TABLE series_state ADD COLUMN part_series TEXT;
",
    "CREATE TABLE overview_tiles (template TEXT PRIMARY KEY, tiles TEXT NOT NULL) WITHOUT ROWID; -- tiles: types::overview_tile::OverviewTile",
    "-- texts: JSON list of what a gateway may quote of what viewers do not see of a manifest that it was given; the newest is last
CREATE TABLE manifest_quotes (id INTEGER PRIMARY KEY AUTOINCREMENT, device TEXT NOT NULL, texts TEXT NOT NULL);
CREATE INDEX manifest_quotes_of_device ON manifest_quotes (device);",
    "-- stamps of the clock of ages (see age_clock.rs), which began with the wall clock; NULL: of an older central, by the wall clock
ALTER TABLE commands ADD COLUMN from_age_ms INTEGER; ALTER TABLE commands ADD COLUMN ended_age_ms INTEGER;
ALTER TABLE cloud_messages ADD COLUMN from_age_ms INTEGER; ALTER TABLE cloud_messages ADD COLUMN until_age_ms INTEGER;
ALTER TABLE cloud_messages ADD COLUMN ended_age_ms INTEGER; ALTER TABLE cloud_feedback ADD COLUMN ended_age_ms INTEGER;
UPDATE cloud_messages SET until_age_ms = expires_ms; DROP INDEX cloud_messages_by_expiry; CREATE INDEX cloud_messages_by_end_of_life ON cloud_messages (until_age_ms) WHERE ended IS NULL;
",
    "
-- roles that administrators made; permissions: JSON list of their ids. The built-in roles are in the program
CREATE TABLE roles (
    id TEXT PRIMARY KEY COLLATE NOCASE,
    display_name TEXT NOT NULL,
    permissions TEXT NOT NULL,
    organization TEXT NOT NULL DEFAULT 'root'
) WITHOUT ROWID;
-- which of them a user or a token has: what its RoleAssignments name, and users.role or tokens.role does not; that one is '' when
-- there is no built-in role. organization '': for the whole site
CREATE TABLE roles_of_users (
    user TEXT NOT NULL COLLATE NOCASE REFERENCES users (id) ON DELETE CASCADE,
    role TEXT NOT NULL COLLATE NOCASE REFERENCES roles (id),
    organization TEXT NOT NULL,
    PRIMARY KEY (user, role, organization)
) WITHOUT ROWID;
CREATE TABLE roles_of_tokens (
    token TEXT NOT NULL REFERENCES tokens (name) ON DELETE CASCADE,
    role TEXT NOT NULL COLLATE NOCASE REFERENCES roles (id),
    organization TEXT NOT NULL,
    PRIMARY KEY (token, role, organization)
) WITHOUT ROWID;
CREATE INDEX roles_of_users_by_role ON roles_of_users (role);
CREATE INDEX roles_of_tokens_by_role ON roles_of_tokens (role);
",
    "
-- 1: group_id names a group that was deleted since the device enrolled; a later one of that id is another group
ALTER TABLE enrollments ADD COLUMN is_group_deleted INTEGER NOT NULL DEFAULT 0;
UPDATE enrollments SET is_group_deleted = 1
    WHERE group_id <> '' AND group_id NOT IN (SELECT id FROM enrollment_groups);
",
];
