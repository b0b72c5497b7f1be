//! Who somebody is: registering with a name and a password, and showing the password or a session's token.

use std::fmt;

use bytes::Bytes;
use chat_proto::client_address::ClientAddress;
use chat_proto::ids::code;
use chat_proto::messages::{LoginRequest, RegisterRequest, ResumeRequest};
use chat_store::{CreateUser, TokenHash, TokenOwner, User, UserId};

use sha2::{Digest, Sha256};

use crate::Services;
use crate::clocks::Asked;
use crate::failure::Failure;
use crate::input;
use crate::limits::LoginAttempt;
use crate::token::Token;
use crate::users::now_ms;

impl Services {
    pub(crate) fn try_register(
        &self,
        address: ClientAddress,
        asked: Asked,
        request: &RegisterRequest,
    ) -> Result<UserId, Failure> {
        let name = input::name(&request.user_name, self.clients.name_characters_max)?;
        if name.is_empty() || request.user_password.is_empty() {
            return Err(Failure::new(
                code::REGISTER_EMPTY,
                "a name and a password are needed",
            ));
        }
        let shortest = self.clients.password_characters_min;
        let password = input::new_password(&request.user_password, shortest)?;
        self.limits.register(address)?;
        let hash = self.passwords.hash(password.as_bytes())?;
        match self.store.on(asked.terms()).create_user(&name, &hash)? {
            CreateUser::Created(user) => Ok(user),
            CreateUser::NameTaken => {
                Err(Failure::new(code::REGISTER_NAME_TAKEN, "the name is taken"))
            }
        }
    }

    /// The user whom somebody calls by this name, if there is one.
    pub(crate) fn user_named(&self, name: &Bytes) -> Result<Option<UserId>, Failure> {
        for name in input::entered_name(name)? {
            if let Some(user) = self.store.user_named(&name)? {
                return Ok(Some(user));
            }
        }
        Ok(None)
    }

    pub(crate) fn authenticate(
        &self,
        address: ClientAddress,
        request: &LoginRequest,
    ) -> Result<User, Failure> {
        let passwords = input::entered_password(&request.user_password)?;
        let passwords = passwords.iter().map(|password| password.as_bytes());
        let by_name = !request.user_name.is_empty();
        if by_name && request.user_id == 0 {
            // The proxy has looked for the name, and there is no such user.
            let attempt = self
                .limits
                .log_in(address, NobodyNamed(&request.user_name))?;
            let refused = self.nobody_verified(&request.user_name, passwords);
            self.settle(&attempt, &refused);
            return refused;
        }
        let Some(id) = UserId::new(request.user_id) else {
            return Err(Failure::new(
                code::LOGIN_BAD_ID,
                "the user id is not positive",
            ));
        };
        let attempt = self.limits.log_in(address, id)?;
        let verified = self.verified(id, passwords);
        self.settle(&attempt, &verified);
        match verified {
            Err(failure) if by_name && failure.is(code::LOGIN_WRONG_PASSWORD) => {
                Err(wrong_name_or_password())
            }
            verified => verified,
        }
    }

    /// Whose session the token is for, if it is one.
    pub(crate) fn recognise(
        &self,
        address: ClientAddress,
        request: &ResumeRequest,
    ) -> Result<(TokenOwner, TokenHash), Failure> {
        let user = UserId::new(request.user_id).ok_or_else(session_ended)?;
        let token = Token::read(&request.session_token).ok_or_else(session_ended)?;
        let token = token.hash();
        let attempt = self.limits.resume(address, user)?;
        let owner = self.token_owner(user, &token);
        self.settle(&attempt, &owner);
        owner.map(|owner| (owner, token))
    }

    /// An attempt that has shown nothing keeps its charge.
    fn settle<T>(&self, attempt: &LoginAttempt, shown: &Result<T, Failure>) {
        let wrong = [
            code::LOGIN_NO_USER,
            code::LOGIN_WRONG_PASSWORD,
            code::SESSION_ENDED,
        ];
        match shown {
            Ok(_) => self.limits.succeeded(attempt),
            Err(failure) if wrong.iter().any(|&code| failure.is(code)) => {}
            Err(_) => self.limits.forget(attempt),
        }
    }

    /// The user, if the token is the user's and has not expired.
    pub(crate) fn token_owner(
        &self,
        user: UserId,
        token: &TokenHash,
    ) -> Result<TokenOwner, Failure> {
        let owner = self.store.token_owner(user, token, now_ms())?;
        owner.ok_or_else(session_ended)
    }

    /// The user, if one of the passwords is the user's.
    fn verified<'p>(
        &self,
        id: UserId,
        passwords: impl Iterator<Item = &'p [u8]>,
    ) -> Result<User, Failure> {
        let Some(user) = self.store.user(id)? else {
            return Err(Failure::new(code::LOGIN_NO_USER, "no such user"));
        };
        if self.passwords.verify_any(passwords, &user.password_hash)? {
            return Ok(user);
        }
        Err(Failure::new(code::LOGIN_WRONG_PASSWORD, "wrong password"))
    }

    /// Refuses a login by a name that nobody has, after the work that a wrong password costs: neither the answer
    /// nor its time tells which names there are.
    fn nobody_verified<'p>(
        &self,
        name: &Bytes,
        passwords: impl Iterator<Item = &'p [u8]>,
    ) -> Result<User, Failure> {
        self.user_named(name)?;
        self.passwords.verify_nobodys(passwords)?;
        Err(wrong_name_or_password())
    }
}

/// A name that no user has, in the names of budgets: one length for all, and printable.
struct NobodyNamed<'a>(&'a [u8]);

impl fmt::Display for NobodyNamed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nobody-{:x}", Sha256::digest(self.0))
    }
}

/// The same whether it is the name or the password: a stranger does not learn which users there are.
fn wrong_name_or_password() -> Failure {
    Failure::new(code::LOGIN_WRONG_PASSWORD, "wrong name or password")
}

/// The same for all that a token can be beside right: a stranger does not learn which users there are.
fn session_ended() -> Failure {
    Failure::new(code::SESSION_ENDED, "the session has ended, log in again")
}
