-- KEYS: lease, fence. ARGV: owner, span, an epoch for a new fence, the span of the fence.
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
    return false
end
local epoch = redis.call('HGET', KEYS[2], 'epoch')
if not epoch then
    epoch = ARGV[3]
    redis.call('HSET', KEYS[2], 'epoch', epoch)
end
local fence = redis.call('HINCRBY', KEYS[2], 'fence', 1)
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return { epoch, fence }
