//! Who somebody is: registering with a name and a password, and showing the password.

use chat_proto::client_address::ClientAddress;
use chat_proto::ids::code;
use chat_proto::messages::{LoginRequest, RegisterRequest};
use chat_store::{CreateUser, User, UserId};

use crate::Services;
use crate::failure::Failure;
use crate::input;

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
        match &verified {
            Ok(_) => self.limits.succeeded(&attempt),
            Err(failure) if failure.is(code::LOGIN_NO_USER) => {}
            Err(failure) if failure.is(code::LOGIN_WRONG_PASSWORD) => {}
            Err(_) => self.limits.forget(&attempt),
        }
        verified
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
