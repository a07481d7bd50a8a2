#!lua
-- Notes that a node is there, and looks at the lease, or puts another row in its place.
-- KEYS: the lease, the nodes that are there, the key that all of them share.
-- ARGV: this node's id, where it is ('': it goes; '-': as was said before), milliseconds after which a node that says nothing is forgotten, the shared key if there is
-- none yet; and to put one: the row that has to stand there ('': none), the row in its place.
-- Answer: the row that stands there ('': none), the shared key, then id and place of each node.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('SET', KEYS[3], ARGV[4], 'NX')
local held = redis.call('GET', KEYS[1]) or ''
if ARGV[6] and held == ARGV[5] then
  redis.call('SET', KEYS[1], ARGV[6])
  held = ARGV[6]
end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[2], ARGV[1])
elseif ARGV[2] ~= '-' then
  redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f %s', now, ARGV[2]))
end
local answer = {held, redis.call('GET', KEYS[3])}
local rows = redis.call('HGETALL', KEYS[2])
for i = 1, #rows, 2 do
  local at, place = string.match(rows[i + 1], '^(%d+) (.*)$')
  if at and now - tonumber(at) <= tonumber(ARGV[3]) then
    answer[#answer + 1] = rows[i]
    answer[#answer + 1] = place
  else
    redis.call('HDEL', KEYS[2], rows[i])
  end
end
return answer
