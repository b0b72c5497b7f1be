//! Who somebody is: registering with a name and a password, and showing the password or a session's token.

use chat_proto::client_address::ClientAddress;
use chat_proto::ids::code;
use chat_proto::messages::{LoginRequest, RegisterRequest, ResumeRequest};
use chat_store::{CreateUser, TokenHash, TokenOwner, User, UserId};

use crate::Services;
use crate::failure::Failure;
use crate::input;
use crate::limits::LoginAttempt;
use crate::token::Token;
use crate::users::now_ms;

impl Services {
    pub(crate) fn try_register(
        &self,
        address: ClientAddress,
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
        match self.store.create_user(&name, &hash)? {
            CreateUser::Created(user) => Ok(user),
            CreateUser::NameTaken => {
                Err(Failure::new(code::REGISTER_NAME_TAKEN, "the name is taken"))
            }
        }
    }

    pub(crate) fn authenticate(
        &self,
        address: ClientAddress,
        request: &LoginRequest,
    ) -> Result<User, Failure> {
        let Some(id) = UserId::new(request.user_id) else {
            return Err(Failure::new(
                code::LOGIN_BAD_ID,
                "the user id is not positive",
            ));
        };
        let passwords = input::entered_password(&request.user_password)?;
        let attempt = self.limits.log_in(address, id)?;
        let verified = self.verified(id, passwords.iter().map(|password| password.as_bytes()));
        self.settle(&attempt, &verified);
        verified
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
}

/// The same for all that a token can be beside right: a stranger does not learn which users there are.
fn session_ended() -> Failure {
    Failure::new(code::SESSION_ENDED, "the session has ended, log in again")
}
