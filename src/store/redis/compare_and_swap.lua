-- KEYS: record. ARGV: 1 if a record is expected, that record, the new record, its end.
local record = redis.call('GET', KEYS[1])
if ARGV[1] == '1' then
    if record ~= ARGV[2] then
        return 0
    end
elseif record then
    return 0
end
redis.call('SET', KEYS[1], ARGV[3], 'PXAT', ARGV[4])
return 1
