#!lua
-- Appends batches at the positions from ARGV[2] on: fence and positions are checked in the step that appends.
-- KEYS: the log, its state. ARGV: fence, first position, their segment, batches. Answer: 'appended', last position; or why not.
-- A batch that stands there already, from this fence, is acknowledged again; nothing is written when one of them differs.
local held = redis.call('HMGET', KEYS[2], 'fence', 'last')
local last = tonumber(held[2] or '0')
if held[1] ~= ARGV[1] then
  return {'stale', held[1] or '0/0', last}
end
local first = tonumber(ARGV[2])
if first < 1 or first > last + 1 then
  return {'position', last}
end
local function id(position)
  return string.format('%.0f-0', position)
end
local fresh = #ARGV + 1
for i = 4, #ARGV do
  local position = first + i - 4
  if position > last then
    fresh = i
    break
  end
  local entry = redis.call('XRANGE', KEYS[1], id(position), id(position))[1]
  if not entry or entry[2][2] ~= ARGV[1] or entry[2][4] ~= ARGV[i] then
    return {'different', position}
  end
end
for i = fresh, #ARGV do
  last = last + 1
  redis.call('XADD', KEYS[1], id(last), 'f', ARGV[1], 'b', ARGV[i], 's', ARGV[3])
end
-- Also when nothing is new: on another connection than the first time, WAIT would otherwise wait for nothing.
redis.call('HSET', KEYS[2], 'last', string.format('%.0f', last))
return {'appended', last}
