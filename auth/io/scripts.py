"""The scripts that the store runs for us: each is one atomic step.

They are sent with EVAL, text and all: the store keeps them compiled by their hash anyway, and there
is no "script not known" to handle after a restart or a failover. KEYS beyond those that share a
slot are left out on a cluster, and the step they stand for is done separately.
"""

BEAT = """
-- The lease is granted by the reply. KEYS: workers. ARGV: worker, "<beat> <lease ms>"
local t = redis.call('TIME')
redis.call('HSETNX', KEYS[1], '~', string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000)))
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
"""

BROADCAST = """
-- KEYS: workers. ARGV: channel, message. Returns the workers and the age of their list, ms.
redis.call('PUBLISH', ARGV[1], ARGV[2])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local born = tonumber(redis.call('HGET', KEYS[1], '~') or now)
return {redis.call('HGETALL', KEYS[1]), now - born}
"""

FORGET = """
-- KEYS: workers. ARGV: worker, value, worker, value, ... that did not move for a whole lease.
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return 1
"""

CREATE = """
-- KEYS: record, tombstone [, events]. ARGV: value, ms to live, digest, subject, now.
-- 1: it stands there as asked, also when an earlier try whose reply was lost wrote it.
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  if redis.call('GET', KEYS[1]) == ARGV[1] then return 1 end
  return 0
end
if KEYS[3] then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', '100000', '*', 'event', 'session.started',
    'session', ARGV[3], 'subject', ARGV[4], 'reason', '', 'at', ARGV[5])
end
return 1
"""

END = """
-- KEYS: record, tombstone [, events, expiring, facts]. ARGV: now ms, ms for an unknown session,
-- longest ms, reason, digest, now. Returns: was it alive, ms for which it must be remembered, its
-- subject. What had expired already is left for `TELL`.
local value = redis.pcall('GET', KEYS[1])
if type(value) == 'table' then value = '' end -- no string: nobody's session, and removed
local remembered = redis.call('PTTL', KEYS[2])
local left = tonumber(ARGV[2])
if not value then
  if remembered >= left then return {0, remembered, ''} end
  redis.call('SET', KEYS[2], ARGV[4], 'PX', string.format('%.0f', left))
  return {0, left, ''}
end
local ok, record = pcall(cjson.decode, value)
local subject, expires = '', nil
if ok and type(record) == 'table' then
  if type(record.subject) == 'string' then subject = record.subject end
  if type(record.expires_at) == 'number' then expires = record.expires_at * 1000 - ARGV[1] end
end
local ttl = redis.call('PTTL', KEYS[1])
if ttl < 0 and not expires then ttl = tonumber(ARGV[3]) end
left = math.floor(math.min(math.max(left, ttl, expires or 0, remembered), tonumber(ARGV[3])))
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], ARGV[4], 'PX', string.format('%.0f', left))
local alive = (remembered == -2 and (not expires or expires > 0)) and 1 or 0
if KEYS[3] and alive == 1 then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', '100000', '*', 'event', 'session.ended',
    'session', ARGV[5], 'subject', subject, 'reason', ARGV[4], 'at', ARGV[6])
  redis.call('ZREM', KEYS[4], ARGV[5])
  redis.call('HDEL', KEYS[5], ARGV[5])
end
return {alive, left, subject}
"""

EXPECT = """
-- KEYS: expiring, facts [, record, tombstone]. ARGV: digest, ms at which it ends unless it is used,
-- facts, NX: it may be new, or XX: it goes on living, or LT: it is being ended. What has ended is
-- not expected to end.
if KEYS[3] and (redis.call('EXISTS', KEYS[3]) == 0 or redis.call('EXISTS', KEYS[4]) == 1) then
  return 0
end
redis.call('ZADD', KEYS[1], ARGV[4], ARGV[2], ARGV[1])
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then redis.call('HSET', KEYS[2], ARGV[1], ARGV[3]) end
return 1
"""

TELL = """
-- KEYS: events, expiring, facts. ARGV: digest, now, reason (empty: its time was over).
-- Tells once of a session that is gone. Returns whether nobody had told of it.
local due = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not due then return 0 end
local expires, subject = string.match(redis.call('HGET', KEYS[3], ARGV[1]) or '', '^(%d+) (.*)$')
local reason = ARGV[3]
if reason == '' then
  -- A time to live is rounded, and counted from when the command arrives.
  reason = expires and tonumber(expires) <= tonumber(due) + 1000 and 'expired' or 'idle'
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('XADD', KEYS[1], 'MAXLEN', '~', '100000', '*', 'event', 'session.ended',
  'session', ARGV[1], 'subject', subject or '', 'reason', reason, 'at', ARGV[2])
return 1
"""

TOUCH = """
-- KEYS: record [, tombstone]. ARGV: idle ms, now ms, least gain ms. Returns ms to live; 0: gone.
-- Extends what is there; never shortens, never beyond expires_at, never brings back.
local value = redis.call('GET', KEYS[1])
if not value or (KEYS[2] and redis.call('EXISTS', KEYS[2]) == 1) then return 0 end
local left = redis.call('PTTL', KEYS[1])
local ok, record = pcall(cjson.decode, value)
if left < 0 or not ok or type(record) ~= 'table' or type(record.expires_at) ~= 'number' then
  return left
end
local idle = math.floor(math.min(tonumber(ARGV[1]), record.expires_at * 1000 - ARGV[2]))
if idle < left + ARGV[3] then return left end
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', idle))
return idle
"""

UPDATE = """
-- KEYS: record [, tombstone]. ARGV: value that was read, value. 0: it is gone, 2: it has changed.
-- Lives as long as before; never brings back.
local value = redis.call('GET', KEYS[1])
if not value or (KEYS[2] and redis.call('EXISTS', KEYS[2]) == 1) then return 0 end
if value == ARGV[2] then return 1 end
if value ~= ARGV[1] then return 2 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1
"""

MARK = """
-- KEYS: bucket. ARGV: ms for which something in it is revoked. Never shortens what stands there.
local left = redis.call('PTTL', KEYS[1])
if left ~= -1 and left < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], '1', 'PX', string.format('%.0f', ARGV[1]))
end
return 1
"""

EPOCH = """
-- KEYS: epoch. ARGV: now ms, session to keep, seconds to live. An epoch never goes back.
local at = tonumber(ARGV[1])
local old = redis.call('GET', KEYS[1])
if old then at = math.max(at, tonumber(string.match(old, '^%d+') or '0')) end
local value = string.format('%.0f', at)
if ARGV[2] ~= '' then value = value .. ' ' .. ARGV[2] end
redis.call('SET', KEYS[1], value, 'EX', ARGV[3])
return value
"""

# A cluster: what a server claims, read inside the step that rests on it. Own line of CLUSTER NODES:
# <id> <address> <flags> <primary> <ping> <pong> <epoch> <link> <slots and what is being moved>
_CLAIMS = """
local id, flags, epoch, slots = string.match('\\n' .. redis.call('CLUSTER', 'NODES'),
  '\\n(%S+) %S+ (myself%S*) %S+ %S+ %S+ (%S+) %S+ ?([^\\n]*)')
local claims = table.concat({id, flags, epoch, slots}, ' ')
"""

CLAIMS = f"""
-- Returns what this server claims.
{_CLAIMS}
return claims
"""

SHARD_BEAT = f"""
-- As BEAT, if nothing has changed hands. KEYS: workers. ARGV: worker, "<beat> <lease ms>", claims.
-- Returns 1, or what is claimed now.
{_CLAIMS}
if claims ~= ARGV[3] then return claims end
{BEAT}
"""

SHARD_BROADCAST = f"""
-- As BROADCAST, if nothing has changed hands. KEYS: workers. ARGV: channel, message, claims.
{_CLAIMS}
if claims ~= ARGV[3] then return claims end
{BROADCAST}
"""

ENTOMB = """
-- KEYS: tombstone. ARGV: reason, ms to live, longest ms. Alone in its step: while their slot is
-- moved, the record may be at another server. Never shortens what stands there.
-- Returns: was it the first, ms to live.
local held = redis.call('GET', KEYS[1])
local left = math.max(tonumber(ARGV[2]), redis.call('PTTL', KEYS[1]))
left = math.min(left, tonumber(ARGV[3]))
redis.call('SET', KEYS[1], held or ARGV[1], 'PX', string.format('%.0f', left))
return {held and 0 or 1, left}
"""
