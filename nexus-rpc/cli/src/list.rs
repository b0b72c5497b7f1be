//! `nexus-rpc list`: the services and who provides them.

use std::collections::BTreeMap;

use nexus_rpc::registry::Provider;
use serde_json::{Value, json};

use crate::args::{Global, List};
use crate::directory::Directory;
use crate::failure::{Failure, printable};
use crate::print;
use crate::types::Types;

const HEAD: [&str; 5] = ["SERVICE", "PROVIDER", "WEIGHT", "ZONE", "VERSION"];

pub(crate) fn run(global: &Global, args: &List) -> Result<(), Failure> {
    let directory = Directory::open(global)?;
    let services = match directory.is_list() {
        true => told_by_providers(&directory, global)?,
        false => registered(&directory)?,
    };
    if args.json {
        let services: Vec<Value> = services.iter().map(as_json).collect();
        return print(&format!("{:#}\n", Value::from(services)));
    }
    if services.is_empty() {
        return Err(Failure::new(
            format!("no service has registered in {}", directory.url()),
            "check the root behind the address (/nexus by default), and whether a provider runs",
        ));
    }
    print(&table(&services))
}

type Services = BTreeMap<String, Vec<Provider>>;

fn registered(directory: &Directory) -> Result<Services, Failure> {
    let mut services = Services::new();
    for service in directory.services()? {
        let providers = directory.providers(&service)?;
        services.insert(service, providers);
    }
    Ok(services)
}

/// A list of addresses has no names: the providers tell which services they have.
fn told_by_providers(directory: &Directory, global: &Global) -> Result<Services, Failure> {
    let mut services = Services::new();
    for provider in directory.providers("")? {
        let types = Types::of_provider(&provider.address.to_string(), global)?;
        for service in types.services() {
            let name = service.full_name().to_owned();
            services.entry(name).or_default().push(provider.clone());
        }
    }
    Ok(services)
}

fn table(services: &Services) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    for (service, providers) in services {
        if providers.is_empty() {
            let none = || "-".to_owned();
            rows.push([service.clone(), none(), none(), none(), none()]);
        }
        for provider in providers {
            rows.push([
                service.clone(),
                provider.address.to_string(),
                provider.weight.to_string(),
                or_dash(&provider.zone),
                or_dash(&provider.version),
            ]);
        }
    }
    let mut widths = [0; HEAD.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line += &format!("{cell:width$}  ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn or_dash(text: &str) -> String {
    match text {
        "" => "-".to_owned(),
        text => printable(text),
    }
}

fn as_json((service, providers): (&String, &Vec<Provider>)) -> Value {
    let providers: Vec<Value> = providers
        .iter()
        .map(|provider| {
            json!({
                "address": provider.address.to_string(),
                "weight": provider.weight,
                "zone": provider.zone,
                "version": provider.version,
                "tags": provider.tags,
            })
        })
        .collect();
    json!({ "service": service, "providers": providers })
}
