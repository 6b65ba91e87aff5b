//! `corehold volume`: named volumes.

use std::process::ExitCode;

use corehold_host::{CreateVolume, VolumeInfo};
use serde_json::json;

use crate::{
    args::{Global, Volume},
    output, surroundings,
};

pub(crate) async fn run(global: &Global, volume: &Volume) -> anyhow::Result<ExitCode> {
    let volumes = surroundings::host(global).await?.volumes();
    match volume {
        Volume::Ls => {
            let all = volumes.list().await?;
            if global.json {
                output::json(&all)?;
                return Ok(ExitCode::SUCCESS);
            }
            if all.is_empty() {
                eprintln!("there are none; `corehold volume create <name>` makes one");
                return Ok(ExitCode::SUCCESS);
            }
            let row = |volume: &VolumeInfo| {
                let names: Vec<&str> = volume.workspaces.iter().map(|workspace| workspace.as_str()).collect();
                let created = volume.created.map(|created| created.to_string()).unwrap_or_default();
                let created = created.get(..19).unwrap_or_default().replace('T', " ");
                [volume.name.clone(), created, names.join(", ")]
            };
            output::table(["NAME", "MADE (UTC)", "MOUNTED BY"], &all.iter().map(row).collect::<Vec<_>>())?;
        }
        Volume::Create { name } => {
            volumes.create(CreateVolume::new(name)).await?;
            if global.json {
                output::json(&json!({ "volume": name, "created": true }))?;
            } else {
                output::line(name)?;
                eprintln!("  corehold up … --mount {name}:/data   mounts it");
            }
        }
        Volume::Rm { names } => {
            for name in names {
                volumes.remove(name).await?;
                if global.json {
                    output::json(&json!({ "volume": name, "removed": true }))?;
                } else {
                    eprintln!("removed {name}");
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
