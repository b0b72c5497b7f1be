//! Registration and look-up.

use std::{sync::Arc, thread};

use chat_store::*;

use super::{Servers, create_group, register, unused_name};

pub(crate) fn a_registered_user_is_found(servers: &Servers) {
    let name = unused_name("ann");
    let CreateUser::Created(id) = servers.a.create_user(&name, "$argon2id$x").unwrap() else {
        panic!("the name is taken");
    };
    let expected = User {
        id,
        name: name.clone(),
        password_hash: "$argon2id$x".into(),
        last_offline_at_ms: None,
        last_login: 0,
    };
    assert_eq!(servers.b.user(id).unwrap(), Some(expected.clone()));
    assert_eq!(servers.b.names(&[id]).unwrap().get(&id), Some(&name));

    servers.a.set_last_offline(id, 1_700_000_000_123).unwrap();
    let expected = User {
        last_offline_at_ms: Some(1_700_000_000_123),
        ..expected
    };
    assert_eq!(servers.b.user(id).unwrap(), Some(expected));
}

pub(crate) fn a_name_is_taken_once(servers: &Servers) {
    let name = unused_name("ann");
    let created: Vec<_> = thread::scope(|scope| {
        let tries: Vec<_> = [&servers.a, &servers.b, &servers.a, &servers.b]
            .map(|store| scope.spawn(|| store.create_user(&name, "hash").unwrap()))
            .into();
        tries.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let winners = created
        .iter()
        .filter(|one| **one != CreateUser::NameTaken)
        .count();
    assert_eq!(winners, 1, "{created:?}");
    assert_eq!(
        servers.a.create_user(&name, "other").unwrap(),
        CreateUser::NameTaken
    );
}

pub(crate) fn names_are_compared_byte_by_byte(servers: &Servers) {
    let base = unused_name("Zoë 张伟 👩‍👩‍👧 𝒳");
    let decomposed = base.replace('ë', "e\u{308}");
    let names = [
        base.clone(),
        base.to_lowercase(),
        decomposed,
        format!("{base} "),
        format!("{base}  "),
        format!(" {base}"),
        format!("{base}\u{3000}"),
        format!("{base}\t"),
        format!("{base}\0"),
        unused_name("' OR 1=1 -- \\"),
    ];
    let mut ids = Vec::new();
    for name in &names {
        match servers.a.create_user(name, "hash").unwrap() {
            CreateUser::Created(id) => ids.push(id),
            CreateUser::NameTaken => panic!("{name:?} is taken"),
        }
    }
    let stored = servers.b.names(&ids).unwrap();
    for (id, name) in ids.iter().zip(&names) {
        assert_eq!(stored.get(id), Some(name));
        assert_eq!(servers.b.user_named(name).unwrap(), Some(*id), "{name:?}");
        assert_eq!(
            servers.b.create_user(name, "hash").unwrap(),
            CreateUser::NameTaken
        );
    }
}

pub(crate) fn a_name_that_nobody_has_is_nobodys(servers: &Servers) {
    register(&*servers.a, "%");
    for name in ["", "%", "_", &unused_name("nobody"), &"x".repeat(1000)] {
        assert_eq!(servers.b.user_named(name).unwrap(), None, "{name:?}");
    }
}

pub(crate) fn texts_that_are_too_long_are_refused(servers: &Servers) {
    let fits = |text: String, bytes_max: usize| {
        let filler = "x".repeat(bytes_max - text.len());
        text + &filler
    };
    let name = fits(unused_name("张"), NAME_BYTES_MAX);
    let hash = "x".repeat(PASSWORD_HASH_BYTES_MAX);
    let CreateUser::Created(id) = servers.a.create_user(&name, &hash).unwrap() else {
        panic!("the name is taken");
    };
    let description = fits("组".into(), DESCRIPTION_BYTES_MAX);
    let group = create_group(&*servers.a, id, &name, &description);
    assert_eq!(
        (group.name, group.description),
        (name.clone(), description.clone())
    );

    let too_long = |result: Result<(), StoreError>| {
        assert!(
            matches!(result, Err(StoreError::TooLong { .. })),
            "{result:?}"
        );
    };
    too_long(servers.a.create_user(&format!("{name}x"), "hash").map(drop));
    too_long(
        servers
            .a
            .create_user("short", &format!("{hash}x"))
            .map(drop),
    );
    too_long(
        servers
            .a
            .create_group(id, &format!("{name}x"), "", 1000)
            .map(drop),
    );
    too_long(
        servers
            .a
            .create_group(id, "short", &format!("{description}x"), 1000)
            .map(drop),
    );
}

pub(crate) fn nobody_is_found_under_an_unused_id(servers: &Servers) {
    let known = register(&*servers.a, "ann");
    let nobody = UserId::new(i32::MAX).unwrap();
    assert_eq!(servers.a.user(nobody).unwrap(), None);
    let names = servers.a.names(&[nobody, known, known]).unwrap();
    assert_eq!(names.keys().copied().collect::<Vec<_>>(), [known]);
    assert!(servers.a.names(&[]).unwrap().is_empty());
    assert!(servers.a.friends(nobody).unwrap().is_empty());
    assert!(servers.a.groups(nobody).unwrap().is_empty());
    assert!(servers.a.conversations(nobody).unwrap().is_empty());
    servers.a.set_last_offline(nobody, 1).unwrap();
}

pub(crate) fn schema_can_be_prepared_again_and_at_once(servers: &Servers) {
    let user = register(&*servers.a, "ann");
    thread::scope(|scope| {
        for store in [&servers.a, &servers.b, &servers.a, &servers.b] {
            let store = Arc::clone(store);
            scope.spawn(move || store.prepare_schema().unwrap());
        }
    });
    assert!(servers.a.user(user).unwrap().is_some());
}
