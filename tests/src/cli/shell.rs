//! `cargo lab shell`: the host for a person.

use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use rustix::termios::{OptionalActions, tcgetattr, tcgetwinsize, tcsetattr};

use super::error::file;
use super::{Error, Lab, build, exec};
use crate::host::{Profile, Script};

/// Options of `shell`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The host's profile.
    #[arg(long, env = "NESTLING_LAB_HOST", default_value = crate::host::profile::DEFAULT, value_name = "PROFILE")]
    host: String,
}

impl Arguments {
    pub(super) fn run(self) -> Result<ExitCode, Error> {
        let lab = Lab::open()?;
        let profile = Profile::named(&self.host)?;
        let nestling = build::nestling(&lab.interrupted)?;
        let mut script = exec::environment(&lab, &profile, Some(&nestling))
            .export("KERNEL", &lab.artifacts.kernel)
            .export("INITRD", &lab.artifacts.guest_initramfs)
            .words("ln -sf", [nestling.as_os_str(), "/usr/bin/nestling".as_ref()]);
        let host = exec::host(&lab, profile, Some(&nestling))?;
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            let mut text = String::new();
            stdin.lock().read_to_string(&mut text).map_err(file("reading", "/dev/stdin"))?;
            let ended = host.run(&script.text(&text), &mut |output| exec::pass_on(output, false))?;
            return Ok(ExitCode::from(ended.status));
        }
        if let Some(size) = tcgetwinsize(&stdin).ok().filter(|size| size.ws_row > 0) {
            script = script.text(&format!("stty rows {} columns {}", size.ws_row, size.ws_col));
        }
        script = greeting(script);
        // QEMU sets the terminal to raw and back; if it is killed it cannot
        let before = tcgetattr(&stdin);
        let ended = host.shell(&script);
        if let Ok(before) = before {
            let _ = tcsetattr(&stdin, OptionalActions::Now, &before);
        }
        Ok(ExitCode::from(ended?.status))
    }
}

fn greeting(script: Script) -> Script {
    script.export("PS1", r"lab:\w\$ ").export("TERM", std::env::var_os("TERM").unwrap_or_else(|| "vt100".into())).text(
        r#"echo
echo "The emulated host ($NESTLING_LAB_PROFILE), with these devices bound to vfio-pci:"
for device in $NESTLING_LAB_DEVICES; do lspci -s "$device"; done
echo
echo 'nestling run --kernel $KERNEL --initrd $INITRD --cmdline "console=ttyAMA0 nestling.test=shell" \'
echo "    --cpus 2 --memory 1G$(for device in $NESTLING_LAB_DEVICES; do echo -n " --device $device"; done)"
echo
echo "exit ends the host."
exec sh"#,
    )
}
