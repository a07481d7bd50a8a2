#!lua flags=no-writes
-- Rows of a keyspace in order. KEYS: its values, its keys in order.
-- ARGV: from, to (as ZRANGE BYLEX has them), 'up' or 'down', rows and bytes at most.
-- Answer: 'more' or 'all', then keys and values; or 'missing' and a key that has no value.
local limit, room = tonumber(ARGV[4]), tonumber(ARGV[5])
local keys
if ARGV[3] == 'up' then
  keys = redis.call('ZRANGE', KEYS[2], ARGV[1], ARGV[2], 'BYLEX', 'LIMIT', 0, limit)
else
  keys = redis.call('ZRANGE', KEYS[2], ARGV[2], ARGV[1], 'BYLEX', 'REV', 'LIMIT', 0, limit)
end
local rows = {#keys < limit and 'all' or 'more'}
for _, key in ipairs(keys) do
  local value = redis.call('HGET', KEYS[1], key)
  if not value then
    return {'missing', key}
  end
  rows[#rows + 1] = key
  rows[#rows + 1] = value
  room = room - #key - #value
  if room < 0 then
    rows[1] = 'more'
    break
  end
end
return rows
