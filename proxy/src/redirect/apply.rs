//! Hands a transaction to `nft`, and translates a refusal into what the operator can change.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

/// By name first; a container's PATH often lacks the directory where nft lives.
const NFT: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error(
        "`nft` is not installed in this image: the redirection rules need nftables (Debian: apt-get install nftables)"
    )]
    NoNft,
    #[error("cannot run `nft`: {0}")]
    Run(#[source] io::Error),
    #[error("`nft` refused the redirection rules ({status}): {said}\n{hint}")]
    Refused {
        status: std::process::ExitStatus,
        said: String,
        hint: &'static str,
    },
}

/// Applies all of `transaction` or nothing of it.
pub(super) fn apply(transaction: &str) -> Result<(), ApplyError> {
    apply_with(&NFT, transaction)
}

pub(super) fn apply_with(programs: &[&str], transaction: &str) -> Result<(), ApplyError> {
    let output = programs
        .iter()
        .find_map(|program| match feed(program, transaction) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            outcome => Some(outcome),
        })
        .ok_or(ApplyError::NoNft)?
        .map_err(ApplyError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ApplyError::Refused {
        status: output.status,
        hint: hint(&said),
        said,
    })
}

fn feed(program: &str, transaction: &str) -> io::Result<Output> {
    let mut nft = Command::new(program)
        .args(["-f", "-"])
        .env("LC_ALL", "C") // hint() reads its messages
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = nft.stdin.take().expect("stdin is piped");
    // An nft that gives up early closes its end; its own message then says more than our EPIPE.
    let _ = stdin.write_all(transaction.as_bytes());
    drop(stdin);
    nft.wait_with_output()
}

fn hint(said: &str) -> &'static str {
    let says = |text| said.contains(text);
    if says("Operation not permitted") || says("Permission denied") {
        "the init container needs the capability NET_ADMIN (securityContext.capabilities.add); \
         namespaces with Pod Security level baseline or restricted do not grant it"
    } else if ["No such file", "not supported", "Protocol wrong"]
        .into_iter()
        .any(says)
    {
        "this kernel lacks a part: the modules nf_tables, nft_chain_nat and nft_redir are needed \
         (on the node: modprobe nft_redir), and NAT for both families in one table needs Linux 5.2 or newer"
    } else {
        "`weir-proxy init --print` shows what was sent"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_nft_is_named_with_its_remedy() {
        let error = apply_with(&["/nonexistent/nft"], "").expect_err("there is no such program");
        assert!(
            error.to_string().contains("apt-get install nftables"),
            "{error}"
        );
    }

    #[test]
    fn an_nft_that_dies_without_reading_is_reported_by_its_status() {
        let error =
            apply_with(&["/nonexistent/nft", "false"], &"x".repeat(1 << 20)).expect_err("false");
        assert!(error.to_string().contains("exit status: 1"), "{error}");
    }

    #[test]
    fn a_refusal_names_the_capability_or_the_kernel_part() {
        let denied = "Error: Could not process rule: Operation not permitted";
        assert!(hint(denied).contains("NET_ADMIN"));
        let lacking =
            "Error: Could not process rule: No such file or directory\nredirect to :14140";
        assert!(hint(lacking).contains("nft_redir"));
        assert!(hint("Error: syntax error").contains("--print"));
    }
}
