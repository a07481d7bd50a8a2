#!lua
-- Forgets what stands below a position. KEYS: the log, its state. ARGV: fence, first position to keep.
local held = redis.call('HMGET', KEYS[2], 'fence', 'last', 'first')
if held[1] ~= ARGV[1] then
  return {'stale', held[1] or '0/0', tonumber(held[2] or '0')}
end
local keep = math.min(tonumber(ARGV[2]), tonumber(held[2] or '0') + 1)
if keep > tonumber(held[3] or '1') then
  redis.call('HSET', KEYS[2], 'first', string.format('%.0f', keep))
  redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f-0', keep))
end
return {'trimmed', keep}
