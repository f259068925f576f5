//! The operations of WebHDFS by HTTP method.

use axum::http::Method;

use crate::error::Refusal;

/// An operation that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read a file.
    Open,
    /// Status of a path; also GETFILELINKSTATUS, there being no symbolic links.
    GetFileStatus,
    /// A whole directory.
    ListStatus,
    /// A page of a directory.
    ListStatusBatch,
    /// Totals of a tree.
    GetContentSummary,
    /// Totals of a tree with quotas.
    GetQuotaUsage,
    /// MD5-of-MD5-of-CRC32C.
    GetFileChecksum,
    /// The user's home.
    GetHomeDirectory,
    /// The user's trash.
    GetTrashRoot,
    /// Defaults that clients ask for.
    GetServerDefaults,
    /// Whether an action is allowed.
    CheckAccess,
    /// Access list: only what the mode says.
    GetAclStatus,
    /// No token without security.
    GetDelegationToken,
    /// Write a new file.
    Create,
    /// Make directories.
    Mkdirs,
    /// Rename.
    Rename,
    /// Set permission bits.
    SetPermission,
    /// Set owner and group.
    SetOwner,
    /// Set times.
    SetTimes,
    /// Set replication.
    SetReplication,
    /// Write at the end of a file.
    Append,
    /// Delete.
    Delete,
}

const GET: &[(&str, Op)] = &[
    ("OPEN", Op::Open),
    ("GETFILESTATUS", Op::GetFileStatus),
    ("GETFILELINKSTATUS", Op::GetFileStatus),
    ("LISTSTATUS", Op::ListStatus),
    ("LISTSTATUS_BATCH", Op::ListStatusBatch),
    ("GETCONTENTSUMMARY", Op::GetContentSummary),
    ("GETQUOTAUSAGE", Op::GetQuotaUsage),
    ("GETFILECHECKSUM", Op::GetFileChecksum),
    ("GETHOMEDIRECTORY", Op::GetHomeDirectory),
    ("GETTRASHROOT", Op::GetTrashRoot),
    ("GETSERVERDEFAULTS", Op::GetServerDefaults),
    ("CHECKACCESS", Op::CheckAccess),
    ("GETACLSTATUS", Op::GetAclStatus),
    ("GETDELEGATIONTOKEN", Op::GetDelegationToken),
];
const PUT: &[(&str, Op)] = &[
    ("CREATE", Op::Create),
    ("MKDIRS", Op::Mkdirs),
    ("RENAME", Op::Rename),
    ("SETPERMISSION", Op::SetPermission),
    ("SETOWNER", Op::SetOwner),
    ("SETTIMES", Op::SetTimes),
    ("SETREPLICATION", Op::SetReplication),
];
const POST: &[(&str, Op)] = &[("APPEND", Op::Append)];
const DELETE: &[(&str, Op)] = &[("DELETE", Op::Delete)];

/// What Hadoop has and this port has not.
const GET_UNSUPPORTED: &[&str] = &[
    "GETSTATUS",
    "GETFILEBLOCKLOCATIONS",
    "GET_BLOCK_LOCATIONS",
    "GETXATTRS",
    "LISTXATTRS",
    "GETALLSTORAGEPOLICY",
    "GETSTORAGEPOLICY",
    "GETECPOLICY",
    "GETECPOLICIES",
    "GETECCODECS",
    "GETLINKTARGET",
    "GETTRASHROOTS",
    "GETDELEGATIONTOKENS",
    "GETSNAPSHOTDIFF",
    "GETSNAPSHOTDIFFLISTING",
    "GETSNAPSHOTTABLEDIRECTORYLIST",
    "GETSNAPSHOTLIST",
];
const PUT_UNSUPPORTED: &[&str] = &[
    "CREATESYMLINK",
    "MODIFYACLENTRIES",
    "REMOVEACLENTRIES",
    "REMOVEDEFAULTACL",
    "REMOVEACL",
    "SETACL",
    "SETXATTR",
    "REMOVEXATTR",
    "SETQUOTA",
    "SETQUOTABYSTORAGETYPE",
    "SETSTORAGEPOLICY",
    "SATISFYSTORAGEPOLICY",
    "ENABLEECPOLICY",
    "DISABLEECPOLICY",
    "SETECPOLICY",
    "ALLOWSNAPSHOT",
    "DISALLOWSNAPSHOT",
    "CREATESNAPSHOT",
    "RENAMESNAPSHOT",
    "RENEWDELEGATIONTOKEN",
    "CANCELDELEGATIONTOKEN",
];
const POST_UNSUPPORTED: &[&str] = &["CONCAT", "TRUNCATE", "UNSETSTORAGEPOLICY", "UNSETECPOLICY"];
const DELETE_UNSUPPORTED: &[&str] = &["DELETESNAPSHOT"];

impl Op {
    /// The operation that a method and the value of `op` name, in any case.
    pub(crate) fn parse(method: &Method, name: Option<&str>) -> Result<Self, Refusal> {
        let (class, known, unsupported) = match method.as_str() {
            "GET" | "HEAD" => ("Get", GET, GET_UNSUPPORTED),
            "PUT" => ("Put", PUT, PUT_UNSUPPORTED),
            "POST" => ("Post", POST, POST_UNSUPPORTED),
            "DELETE" => ("Delete", DELETE, DELETE_UNSUPPORTED),
            other => return Err(Refusal::unsupported(format!("{other} is not supported"))),
        };
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Err(Refusal::unsupported("op=NULL is not supported"));
        };
        let name = name.to_ascii_uppercase();
        if let Some((_, op)) = known.iter().find(|(known, _)| *known == name) {
            return Ok(*op);
        }
        if name == "CREATESYMLINK" {
            return Err(Refusal::unsupported("Symlinks not supported"));
        }
        if unsupported.contains(&name.as_str()) {
            return Err(Refusal::unsupported(format!("op={name} is not supported")));
        }
        Err(Refusal::illegal(format!(
            "Invalid value for webhdfs parameter \"op\": No enum constant \
             org.apache.hadoop.hdfs.web.resources.{class}OpParam.Op.{name}"
        )))
    }

    /// Whether the data node's port answers this operation.
    pub(crate) fn is_redirected(self) -> bool {
        matches!(self, Self::Open | Self::Create | Self::Append | Self::GetFileChecksum)
    }
}
