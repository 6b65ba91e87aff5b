//! Every environment variable that crosses the border between host and agent, in one place.
//!
//! Variables that only one side reads are documented where that side reads its configuration
//! (`agent/src/config.rs`, `host-lib/src/config.rs`).

/// TCP port of the agent. Default 3001.
pub const PORT: &str = "COREHOLD_PORT";
/// Absolute path of the workspace root. Default `/app`.
pub const ROOT: &str = "COREHOLD_ROOT";
/// The agent's name in tokens (`aud`): the container's name or id as the host chose it.
pub const INSTANCE: &str = "COREHOLD_INSTANCE";
/// Ed25519 public key of the host, 32 bytes in standard base64. Tokens signed with its private half are accepted.
pub const PUBLIC_KEY: &str = "COREHOLD_PUBLIC_KEY";
/// SHA-256, in hex, of a static token with every scope: for an agent that stands alone, without a host.
pub const TOKEN_SHA256: &str = "COREHOLD_TOKEN_SHA256";
/// The workspace that this agent serves from its start. Absent in a pool container, which is claimed later.
/// Commands see it too (B12).
pub const WORKSPACE_ID: &str = "COREHOLD_WORKSPACE_ID";
/// The workspace's owner, as the host names them, for commands (B12).
pub const OWNER_ID: &str = "COREHOLD_OWNER_ID";
/// The owner's team, as the host names it, for commands (B12).
pub const TEAM_ID: &str = "COREHOLD_TEAM_ID";
/// The address of the host's API as the workspace reaches it, for commands (B12).
pub const API_URL: &str = "COREHOLD_API_URL";
/// Folder in the container into which the host lays archives for `extract`. Default `/tools/inbox`.
pub const INBOX: &str = "COREHOLD_INBOX";

/// What commands may run: a [`CommandPolicy`](crate::policy::CommandPolicy) in JSON, or the absolute path of a file that
/// holds one. Absent: every command may.
pub const COMMAND_POLICY: &str = "COREHOLD_COMMAND_POLICY";

/// Absolute path, inside the container, of the CA bundle that the host handed in.
pub const CA_BUNDLE: &str = "COREHOLD_CA_BUNDLE";

/// The variables of these that commands see: they are the workspace's, all others the agent's own.
pub const FOR_COMMANDS: &[&str] = &[WORKSPACE_ID, OWNER_ID, TEAM_ID, API_URL, CA_BUNDLE];

/// The variable by which every JVM learns of options; set to `-Djavax.net.ssl.trustStore=…` when a CA bundle is handed in, since Java takes no PEM.
pub const JAVA_OPTIONS: &str = "JAVA_TOOL_OPTIONS";

/// The variables by which common tools learn of a CA bundle; each is set to the bundle's path when one is handed in.
pub const CA_BUNDLE_READERS: &[&str] = &[
    "SSL_CERT_FILE",       // OpenSSL, Go, Rust's native-certs, Ruby
    "NODE_EXTRA_CA_CERTS", // Node
    "npm_config_cafile",   // npm, pnpm, yarn 1
    "PIP_CERT",            // pip
    "REQUESTS_CA_BUNDLE",  // Python requests
    "CURL_CA_BUNDLE",      // curl
    "GIT_SSL_CAINFO",      // git
    "CARGO_HTTP_CAINFO",   // cargo
    "BUNDLE_SSL_CA_CERT",  // bundler
    "AWS_CA_BUNDLE",       // AWS tools
    "DENO_CERT",           // Deno
];
