#!lua
-- Changes rows of keyspaces, all of them in one step.
-- KEYS: the partition's state; then of each keyspace its values and its keys in order.
-- ARGV: fence ('' asks for none); then of each keyspace how many rows are put and how many taken away, key and value of each that is
-- put, key of each that is taken away. Answer: 'written'; or 'stale' and the fence that holds.
if ARGV[1] ~= '' then
  local held = redis.call('HGET', KEYS[1], 'fence')
  if held ~= ARGV[1] then
    return {'stale', held or '0/0'}
  end
end
-- As many as a call takes on Lua's stack, with room to spare.
local few = 1000
local at = 2
for i = 2, #KEYS, 2 do
  local put, gone = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  at = at + 2
  while put > 0 do
    local n = math.min(put, few)
    redis.call('HSET', KEYS[i], unpack(ARGV, at, at + 2 * n - 1))
    local ordered = {}
    for j = 0, n - 1 do
      ordered[2 * j + 1] = 0
      ordered[2 * j + 2] = ARGV[at + 2 * j]
    end
    redis.call('ZADD', KEYS[i + 1], unpack(ordered))
    at, put = at + 2 * n, put - n
  end
  while gone > 0 do
    local n = math.min(gone, few)
    redis.call('HDEL', KEYS[i], unpack(ARGV, at, at + n - 1))
    redis.call('ZREM', KEYS[i + 1], unpack(ARGV, at, at + n - 1))
    at, gone = at + n, gone - n
  end
end
-- Also when nothing is new: WAIT has something to wait for.
redis.call('HINCRBY', KEYS[1], 'writes', 1)
return {'written'}
