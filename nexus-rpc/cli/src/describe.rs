//! `nexus-rpc describe`: methods and messages as `.proto` text.

use crate::args::{Describe, Global, MethodName, TypeSource};
use crate::directory::Directory;
use crate::failure::Failure;
use crate::print;
use crate::types::Types;

pub(crate) fn run(global: &Global, args: &Describe) -> Result<(), Failure> {
    let source = &args.types;
    // Files need no registry: they have all there is to know.
    let text = match (&args.name, Types::of_files(source)?) {
        (None, Some(types)) => all_of(&types),
        (None, None) => everything(source, global)?,
        (Some(name), Some(types)) => types.describe(name)?,
        (Some(name), None) => one(name, source, global)?,
    };
    print(&text)
}

/// A service, or something that belongs to one. Whose types to ask for, its name does not tell: it is
/// asked which service it begins with.
fn one(name: &str, source: &TypeSource, global: &Global) -> Result<String, Failure> {
    let directory = Directory::open(global)?;
    if directory.is_list() || source.pages.is_some() {
        return Types::of_service(name, source, &directory, global)?.describe(name);
    }
    let services = directory.services()?;
    let method: Option<MethodName> = name.parse().ok();
    let of_method = method.map(|method| method.service);
    let service = services
        .iter()
        .find(|known| **known == name || of_method.as_ref() == Some(*known));
    if let Some(service) = service {
        return Types::of_service(service, source, &directory, global)?.describe(name);
    }
    // A message: of one of the services.
    for service in &services {
        let Ok(types) = Types::of_service(service, source, &directory, global) else {
            continue;
        };
        if types.knows(name) {
            return types.describe(name);
        }
    }
    Err(Failure::new(
        format!(
            "no service, method or message {name} is known in {}",
            directory.url()
        ),
        "`nexus-rpc list` shows the services; a message is known while a provider of its service runs",
    ))
}

fn everything(source: &TypeSource, global: &Global) -> Result<String, Failure> {
    if let Some(pages) = &source.pages {
        return Ok(all_of(&Types::of_provider(pages, global)?));
    }
    let directory = Directory::open(global)?;
    if directory.is_list() {
        return Ok(all_of(&Types::of_service("", source, &directory, global)?));
    }
    let mut texts = Vec::new();
    for service in directory.services()? {
        // One that does not tell must not hide the others.
        let told = Types::of_service(&service, source, &directory, global)
            .and_then(|types| types.describe(&service));
        match told {
            Ok(text) => texts.push(text),
            Err(failure) => log::warn!("{service} is left out: {failure}"),
        }
    }
    if texts.is_empty() {
        return Err(Failure::new(
            format!("no service in {} tells its types", directory.url()),
            "`nexus-rpc list` shows which are registered; --proto FILE describes a file instead",
        ));
    }
    Ok(texts.join("\n"))
}

fn all_of(types: &Types) -> String {
    let services: Vec<String> = types.services().map(|s| types.text_of(&s)).collect();
    services.join("\n")
}
