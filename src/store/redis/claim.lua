#!lua
-- Takes a partition over. Whoever held it before can append no more, from this step on.
-- KEYS: its state. ARGV: nonce; epoch and position that the claimant knows were once here.
-- Answer: epoch, last position, first position kept; or 'regressed', epoch, last when the store has less than it once had.
local held = redis.call('HMGET', KEYS[1], 'epoch', 'last', 'first')
local epoch, last, first = tonumber(held[1] or '0'), tonumber(held[2] or '0'), tonumber(held[3] or '1')
if epoch < tonumber(ARGV[2]) or last < tonumber(ARGV[3]) then
  return {'regressed', epoch, last}
end
epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'fence', epoch .. '/' .. ARGV[1])
return {'claimed', epoch, last, first}
