//! What Redis has to do atomically, in Lua.
//!
//! A script runs as one step; nothing else happens in Redis meanwhile. In all of them an entry
//! is alive if it is of the form `proxy:session` and the key of that proxy's lease exists.

/// A new session replaces a live one.
pub(super) const NEWER_WINS: &str = "newer";
/// A live session keeps its user.
pub(super) const OLDER_WINS: &str = "older";

/// Makes a session that of a user.
///
/// Keys: the user's. Arguments: the session, the prefix of lease keys, the life of the entry in
/// ms, the policy. Answer: whether granted (1 or 0), and the live other session that was found,
/// or the empty string.
pub(super) const CLAIM: &str = r"
local held = redis.call('GET', KEYS[1])
local proxy = held and held ~= ARGV[1] and string.match(held, '^(%x+):%d+$')
if not proxy or redis.call('EXISTS', ARGV[2] .. proxy) == 0 then
    held = ''
end
if held ~= '' and ARGV[4] == 'older' then
    return {0, held}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return {1, held}
";

/// Removes the entry of a user if it still is that of a session.
///
/// Keys: the user's. Arguments: the session. Answer: how many entries were removed.
pub(super) const RELEASE: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
";

/// Holds a lease.
///
/// Keys: the lease's. Arguments: its time in ms. Answer: whether there was one already (1 or 0).
pub(super) const RENEW_LEASE: &str = r"
local kept = redis.call('EXISTS', KEYS[1])
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return kept
";

/// Puts sessions back, unless another live session has the user.
///
/// Keys: the users'. Arguments: the prefix of lease keys, the life of an entry in ms, then a
/// session for each key. Answer: the positions, from 0, of the users that others have.
pub(super) const RESTORE: &str = r"
local taken = {}
for index, key in ipairs(KEYS) do
    local session = ARGV[index + 2]
    local held = redis.call('GET', key)
    local proxy = held and held ~= session and string.match(held, '^(%x+):%d+$')
    if proxy and redis.call('EXISTS', ARGV[1] .. proxy) == 1 then
        taken[#taken + 1] = index - 1
    else
        redis.call('SET', key, session, 'PX', ARGV[2])
    end
end
return taken
";

/// Takes one from each budget, or from none. What was used of a budget is the remaining life of its
/// key, so no clock is asked and what is full again takes no room.
///
/// Keys: the budgets'. Arguments: for each the life that one use adds and the most there may be, in ms.
/// Answer: 0, or the place from 1 of the budget that lacks one for longest; and for how long, in ms.
pub(super) const SPEND: &str = r"
local lives, place, wait = {}, 0, 0
for index, key in ipairs(KEYS) do
    lives[index] = math.max(redis.call('PTTL', key), 0) + ARGV[2 * index - 1]
    local over = lives[index] - ARGV[2 * index]
    if over > wait then
        place, wait = index, over
    end
end
if place == 0 then
    for index, key in ipairs(KEYS) do
        redis.call('SET', key, '', 'PX', lives[index])
    end
end
return {place, wait}
";

/// Gives one back to each budget.
///
/// Keys: the budgets'. Arguments: for each the life that one use adds, in ms.
pub(super) const REFUND: &str = r"
for index, key in ipairs(KEYS) do
    local life = redis.call('PTTL', key) - ARGV[index]
    if life > 0 then
        redis.call('PEXPIRE', key, life)
    else
        redis.call('DEL', key)
    end
end
return 0
";
