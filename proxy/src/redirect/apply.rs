//! Puts the rules into force, and translates a refusal into what the operator can change.

use std::io;

use super::netlink::Refused;
use super::ruleset::Rules;
use super::table;

#[derive(Debug, thiserror::Error)]
#[error("the kernel refused {what} of the redirection: {error}\n{hint}")]
pub(crate) struct ApplyError {
    what: String,
    error: io::Error,
    hint: &'static str,
}

/// All of it or nothing, in the network namespace of the calling thread.
pub(super) fn install(rules: &Rules) -> Result<(), ApplyError> {
    table::install(rules).map_err(ApplyError::from)
}

pub(super) fn remove() -> Result<(), ApplyError> {
    table::remove().map_err(ApplyError::from)
}

impl From<Refused> for ApplyError {
    fn from(Refused { what, error }: Refused) -> Self {
        let hint = hint(&error);
        Self { what, error, hint }
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "it takes the capability NET_ADMIN (securityContext.capabilities.add); namespaces with Pod Security level \
             baseline or restricted do not grant it, and CNI mode does without (weir install --cni)"
        }
        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => {
            "this kernel lacks a part: the modules nf_tables, nft_chain_nat and nft_redir are needed \
             (on the node: modprobe nft_redir), and NAT for both families in one table needs Linux 5.2 or newer"
        }
        _ => "`weir-proxy init --print` shows the rules as nft writes them",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_capability_or_the_kernel_part() {
        let hint = |number| hint(&io::Error::from_raw_os_error(number));
        assert!(hint(libc::EPERM).contains("NET_ADMIN"));
        assert!(hint(libc::ENOENT).contains("nft_redir"));
        assert!(hint(libc::EINVAL).contains("--print"));
    }
}
