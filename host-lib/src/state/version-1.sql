-- A store of version 1, as corehold wrote it in November 2026. It stays in the tests for ever.
PRAGMA application_id = 1668248165;
PRAGMA user_version = 1;
CREATE TABLE workspaces (
    id TEXT PRIMARY KEY NOT NULL,
    owner TEXT UNIQUE,
    state TEXT NOT NULL,
    reason TEXT,
    engine TEXT NOT NULL,
    container TEXT,
    instance TEXT NOT NULL,
    recipe TEXT NOT NULL,
    archive TEXT,
    created TEXT NOT NULL,
    entered_at TEXT NOT NULL,
    generation INTEGER NOT NULL,
    actor TEXT,
    policy TEXT
) STRICT, WITHOUT ROWID;
INSERT INTO workspaces VALUES (
    'old', 'ada', 'asleep', NULL, 'engine', NULL, 'old-abcd', '{"template":"web","memoryBytes":536870912,"previewPort":4321}',
    'old/01', '2026-11-20T10:00:00.000000000Z', '2026-11-20T11:00:00.000000000Z', 3, NULL, '{"stopped":true}'
);
