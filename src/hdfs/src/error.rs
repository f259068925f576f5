//! Refusals as Hadoop's `RemoteException`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use blocks::{BlockError, FsError, FsErrorKind};
use serde_json::json;

/// A refusal with its HTTP code and Java class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: StatusCode,
    /// Full Java class name.
    pub class: &'static str,
    /// Text for the user.
    pub message: String,
}

impl Refusal {
    pub(crate) fn illegal(message: impl Into<String>) -> Self {
        let class = FsErrorKind::IllegalArgument.java_class();
        Self { status: StatusCode::BAD_REQUEST, class, message: message.into() }
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        let class = FsErrorKind::Unsupported.java_class();
        Self { status: StatusCode::BAD_REQUEST, class, message: message.into() }
    }

    pub(crate) fn io(message: impl Into<String>) -> Self {
        let class = FsErrorKind::Io.java_class();
        Self { status: StatusCode::FORBIDDEN, class, message: message.into() }
    }
}

impl From<FsError> for Refusal {
    fn from(error: FsError) -> Self {
        // Hadoop: FileNotFound 404, illegal arguments 400, every other IOException 403.
        let status = match error.kind {
            FsErrorKind::FileNotFound => StatusCode::NOT_FOUND,
            FsErrorKind::IllegalArgument | FsErrorKind::Unsupported | FsErrorKind::InvalidPath => {
                StatusCode::BAD_REQUEST
            }
            FsErrorKind::FileAlreadyExists
            | FsErrorKind::AccessControl
            | FsErrorKind::PathIsNotEmptyDirectory
            | FsErrorKind::ParentNotDirectory
            | FsErrorKind::LeaseExpired
            | FsErrorKind::AlreadyBeingCreated
            | FsErrorKind::PathComponentTooLong
            | FsErrorKind::Io
            | FsErrorKind::StaleBlocks
            | FsErrorKind::Fenced => StatusCode::FORBIDDEN,
        };
        Self { status, class: error.kind.java_class(), message: error.message }
    }
}

impl From<BlockError> for Refusal {
    fn from(error: BlockError) -> Self {
        let message = error.to_string();
        let (status, class) = match error {
            BlockError::Fs(error) => return error.into(),
            // Hadoop's clients try again when they see this class.
            BlockError::Unavailable(_) => {
                (StatusCode::FORBIDDEN, "org.apache.hadoop.ipc.RetriableException")
            }
            BlockError::NoSpace(_) => (StatusCode::FORBIDDEN, "java.io.IOException"),
            BlockError::Corrupt { .. } => {
                (StatusCode::FORBIDDEN, "org.apache.hadoop.hdfs.BlockMissingException")
            }
            BlockError::Disk(_) => (StatusCode::INTERNAL_SERVER_ERROR, "java.io.IOException"),
        };
        Self { status, class, message }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let simple = self.class.rsplit(['.', '$']).next().unwrap_or(self.class);
        let body = json!({"RemoteException": {
            "exception": simple,
            "javaClassName": self.class,
            "message": self.message,
        }});
        (self.status, Json(body)).into_response()
    }
}
