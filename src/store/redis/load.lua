-- KEYS: record. Returns the time, and the record with its end if there is one.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local record = redis.call('GET', KEYS[1])
if not record then
    return { now }
end
return { now, redis.call('PEXPIRETIME', KEYS[1]), record }
