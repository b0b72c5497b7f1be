//! What Redis has to do atomically, in Lua.
//!
//! A script runs as one step; nothing else happens in Redis meanwhile. In all of them an entry
//! is alive if it is of the form `proxy:session` and the key of that proxy's lease exists.

/// A new session replaces a live one.
pub(super) const NEWER_WINS: &str = "newer";
/// A live session keeps its user.
pub(super) const OLDER_WINS: &str = "older";

/// What [`CLAIM`] answers first.
pub(super) const GRANTED: i64 = 1;
pub(super) const REFUSED: i64 = 0;
pub(super) const OUTDATED: i64 = -1;
pub(super) const OVER: i64 = -2;

/// What scripts that give users to sessions have in common. Numbers of logins are small enough for Lua's.
macro_rules! with_giving {
    ($script:literal) => {
        concat!(
            r"
local function number(key)
    return tonumber(redis.call('GET', key) or '0')
end
local function other(entry, session, leases)
    local held = redis.call('GET', entry)
    local proxy = held and held ~= session and string.match(held, '^(%x+):%d+$')
    return proxy and redis.call('EXISTS', leases .. proxy) == 1 and held
end
local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function asked_text(run, attempt, at)
    return run .. ':' .. attempt .. ':' .. string.format('%.0f', at)
end
local function users_of(session)
    return ARGV[1] .. string.match(session, '^(%x+):') .. ':users'
end
local function give(entry, latest, lost, asked, session, login, asked_now, replaced, life, lost_life, lost_max)
    if asked_now or tonumber(login) > number(latest) or redis.call('PEXPIRE', asked, life) == 0 then
        redis.call('SET', asked, asked_now or asked_text('0', '0', now()), 'PX', life)
    end
    redis.call('SET', entry, session, 'PX', life)
    if tonumber(login) > 0 then
        redis.call('SET', latest, login, 'PX', life)
    end
    local user = string.match(entry, '%-?%d+$')
    if replaced then
        redis.call('SREM', users_of(replaced), user)
        redis.call('LREM', lost, 0, replaced)
        redis.call('RPUSH', lost, replaced)
        redis.call('LTRIM', lost, -lost_max, -1)
        redis.call('PEXPIRE', lost, lost_life)
    end
    redis.call('SADD', users_of(session), user)
    redis.call('PEXPIRE', users_of(session), life)
    redis.call('LREM', lost, 0, session)
    return redis.call('LRANGE', lost, 0, -1)
end
",
            $script
        )
    };
}

/// Makes a session that of a user.
///
/// Keys: the user's entry, latest login, lost sessions, and what was asked for last (`run:attempt:time`); the mark that
/// the session is over. Arguments: the prefix of lease keys, the life of the entry in ms, the life of lost sessions in ms,
/// the most of them; the session, its login, the policy; the client's run and attempt, and how long the claim has waited
/// in ms. Answer: how it ended, the latest login, and the sessions that lost the user.
pub(super) const CLAIM: &str = with_giving!(
    r"
local session, login = ARGV[5], ARGV[6]
if redis.call('EXISTS', KEYS[5]) == 1 then
    return {-2, '0', {}}
end
local held = other(KEYS[1], session, ARGV[1])
if held and ARGV[7] == 'older' then
    return {0, '0', {}}
end
local latest = redis.call('GET', KEYS[2]) or '0'
if tonumber(login) > 0 and tonumber(login) < tonumber(latest) then
    return {-1, latest, {}}
end
local run, attempt, waited = ARGV[8], ARGV[9], tonumber(ARGV[10])
local asked_at = now() - waited
if tonumber(login) <= tonumber(latest) then
    local last = redis.call('GET', KEYS[4]) or ''
    local last_run, last_attempt, last_at = string.match(last, '^(%d+):(%d+):(%d+)$')
    local overtaken
    if last_run == run and run ~= '0' then
        overtaken = tonumber(attempt) < tonumber(last_attempt)
    else
        overtaken = last_at and waited > 0 and asked_at < tonumber(last_at)
    end
    if overtaken then
        return {-2, latest, {}}
    end
    for _, lost in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do
        if lost == session then
            return {-2, latest, {}}
        end
    end
end
local asked = asked_text(run, attempt, asked_at)
return {1, latest, give(KEYS[1], KEYS[2], KEYS[3], KEYS[4], session, login, asked, held, ARGV[2], ARGV[3], ARGV[4])}
"
);

/// Whether a client has asked for its session within some time.
///
/// Keys: what the user's client has asked for last. Arguments: the time in ms.
pub(super) const CLAIMED_SINCE: &str = r"
local at = string.match(redis.call('GET', KEYS[1]) or '', ':(%d+)$')
local time = redis.call('TIME')
return at and tonumber(at) > time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[1] and 1 or 0
";

/// Removes the entry of a user if it still is that of a session, and marks the session as over.
///
/// Keys: the user's, the mark, the users of the session's proxy. Arguments: the session, the life of the mark in ms, the
/// user. Answer: how many entries were removed.
pub(super) const RELEASE: &str = r"
redis.call('SET', KEYS[2], '', 'PX', ARGV[2])
if redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('SREM', KEYS[3], ARGV[3])
    return redis.call('DEL', KEYS[1])
end
return 0
";

/// Reads the entries of some users of a proxy, and takes those off its list whose entry is not the proxy's.
///
/// Keys: the users of the proxy; the entry of each. Arguments: the proxy, the users. Answer: the proxy's entries, each
/// after its user.
pub(super) const ENTRIES: &str = r"
local found = {}
for index, user in ipairs(ARGV) do
    if index > 1 then
        local held = redis.call('GET', KEYS[index])
        if held and string.match(held, '^(%x+):') == ARGV[1] then
            found[#found + 1] = user
            found[#found + 1] = held
        else
            redis.call('SREM', KEYS[1], user)
        end
    end
end
return found
";

/// Holds a lease, whose value counts how often it was renewed.
///
/// Keys: the lease's. Arguments: its time in ms; the count as its holder left it. Answer: the count before, -1 for none;
/// the count now; which run of Redis this is, empty for a Redis user that may not ask (`INFO`).
pub(super) const RENEW_LEASE: &str = r"
local before = redis.call('GET', KEYS[1])
local count = math.max(tonumber(before or '0') or 0, tonumber(ARGV[2])) + 1
redis.call('SET', KEYS[1], count, 'PX', ARGV[1])
local server = redis.pcall('INFO', 'server')
local run = type(server) == 'string' and string.match(server, 'run_id:(%x+)')
return {before and tonumber(before) or -1, count, run or ''}
";

/// Puts sessions back, unless another live session has the user that is not known to be of an older login, or the user has
/// logged in later.
///
/// Keys: for each session those of [`CLAIM`]. Arguments: the first four of [`CLAIM`], then for each session itself
/// and its login. Answer: for each session how it ended, as [`CLAIM`] does, and the sessions that lost the user.
pub(super) const RESTORE: &str = with_giving!(
    r"
local answers = {}
for index = 1, #KEYS / 5 do
    local entry, latest, lost, asked, over = unpack(KEYS, 5 * index - 4, 5 * index)
    local session, login = ARGV[2 * index + 3], ARGV[2 * index + 4]
    local held = other(entry, session, ARGV[1])
    if redis.call('EXISTS', over) == 1 then
        answers[index] = {-2, {}}
    elseif tonumber(login) > 0 and tonumber(login) < number(latest) then
        answers[index] = {-1, {}}
    elseif held and tonumber(login) <= number(latest) then
        answers[index] = {0, {}}
    else
        answers[index] = {1, give(entry, latest, lost, asked, session, login, nil, held, ARGV[2], ARGV[3], ARGV[4])}
    end
end
return answers
"
);

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

/// Runs every command that the scripts here run, so that Redis refuses it if it would refuse any of them.
///
/// Keys: a text, a list, a set; nobody else's.
pub(super) const PROBE: &str = r"
redis.call('SET', KEYS[1], '', 'PX', 60000)
redis.call('GET', KEYS[1])
redis.call('EXISTS', KEYS[1])
redis.call('PTTL', KEYS[1])
redis.call('PEXPIRE', KEYS[1], 60000)
redis.call('DEL', KEYS[1])
redis.call('RPUSH', KEYS[2], '')
redis.call('LTRIM', KEYS[2], 0, 0)
redis.call('LRANGE', KEYS[2], 0, -1)
redis.call('LREM', KEYS[2], 0, '')
redis.call('SADD', KEYS[3], '')
redis.call('SREM', KEYS[3], '')
redis.call('TIME')
return 1
";
