//! Users as operators see and change them. Passwords do not travel: what is sent is what is kept.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use console::{AdminError, Answer};
use secure::limits::MAX_NAME;
use secure::scram::{Hash, Verifier};
use secure::{SecureError, Security, UserChange, UserResult};
use serde_json::{Value, json};

fn failed(error: SecureError) -> AdminError {
    AdminError::unavailable(error)
}

/// All users with their mechanisms.
pub(crate) async fn list(security: &Security) -> Answer {
    security.fresh().await.map_err(failed)?;
    let users = security.store().users();
    let rows = users.into_iter().map(|(name, verifiers)| {
        let names: Vec<&str> = verifiers.iter().map(|(hash, _)| hash.mechanism()).collect();
        let iterations = verifiers.iter().map(|(_, n)| *n).min();
        json!({"name": name, "mechanisms": names, "iterations": iterations})
    });
    Ok(rows.collect())
}

/// Makes a user, or gives it other credentials: `{name, credentials: [{mechanism, iterations,
/// salt, stored_key, server_key}]}` with base64.
pub(crate) async fn put(security: &Security, spec: &Value) -> Answer {
    let bad = AdminError::bad_request;
    let name = spec["name"].as_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| bad("name is missing"))?;
    if name.len() > MAX_NAME || name.contains(['\0', '\n']) {
        return Err(bad("the name is too long or has characters that names cannot have"));
    }
    let credentials = spec["credentials"].as_array().filter(|c| !c.is_empty());
    let credentials = credentials.ok_or_else(|| bad("credentials are missing"))?;
    let changes: Result<Vec<UserChange>, AdminError> =
        credentials.iter().take(Hash::ALL.len()).map(|c| change(name, c)).collect();
    let results = security.alter_users(changes?).await.map_err(failed)?;
    if results.contains(&UserResult::TooMany) {
        return Err(AdminError::unavailable("there are as many users as the cluster takes"));
    }
    Ok(json!({"name": name}))
}

fn change(name: &str, credential: &Value) -> Result<UserChange, AdminError> {
    let mechanism = credential["mechanism"].as_str().unwrap_or_default();
    let hash = Hash::ALL.into_iter().find(|h| h.mechanism() == mechanism);
    let hash = hash.ok_or_else(|| {
        AdminError::bad_request("mechanism must be SCRAM-SHA-256 or SCRAM-SHA-512")
    })?;
    let iterations = credential["iterations"].as_u64().and_then(|n| u32::try_from(n).ok());
    let bytes = |field: &str| {
        let text = credential[field].as_str().unwrap_or_default();
        STANDARD.decode(text).map_err(|_| AdminError::bad_request(format!("{field} is not base64")))
    };
    let (salt, stored, server) = (bytes("salt")?, bytes("stored_key")?, bytes("server_key")?);
    let verifier = Verifier::of_keys(hash, salt, iterations.unwrap_or(0), stored, server);
    let verifier = verifier.map_err(AdminError::bad_request)?;
    Ok(UserChange::Set { name: name.to_owned(), hash, verifier })
}

/// Removes a user.
pub(crate) async fn delete(security: &Security, name: &str) -> Answer {
    match security.delete_user(name).await.map_err(failed)? {
        UserResult::Done => Ok(json!({"deleted": name})),
        UserResult::NotFound | UserResult::TooMany => {
            Err(AdminError::not_found(format!("user {name:?} does not exist")))
        }
    }
}
