-- fanout: rooms with a history. See WIRE.md of github.com/fanoutgo/fanout.
--
-- A history is a stream, whose entries are frames, and a note beside it. The ID
-- of an entry is the position of the frame's last message: epoch-offset. Its one
-- field is named by the time in ms since 1970 and the number of messages.
--
-- The note is a hash. s: "epoch base expires reign", where base is the offset at
-- which the epoch began, expires when the stream does, in ms, and reign the
-- first 20 digits of the replication ID of the server that began the epoch; o: the offset of the last
-- message; c: the epochs before, "epoch:last:whole," each; n, u: the node and the
-- run of that server; and for each publisher how far it has come: "stream next
-- offset".
--
-- append is called for every frame: what can be left out there is.

local KEPT = '\250fo\1\2'
local ANNOUNCED = '\250fo\1\3'
local LONG = 2048 -- bytes of a frame above which it is announced, and sent as it is
local DAY = 86400000
local CHECK = 200  -- ms after which we look again who we are
local PAST = 1600  -- bytes of past epochs that are remembered
local SKEW = 1000  -- ms by which clocks of hubs may differ, and then some
local MARKS = 64   -- fields of a note above which old publishers are forgotten

-- Who this server is. Its replication ID changes whenever it may have lost
-- something: when it starts, and when it becomes a primary. These live in the
-- memory of the server alone, so a replica that takes over has its own.
local reign, former, node, run, checked
local since -- it has been what it is since then, or for longer

local function whoami(now)
  if checked and now - checked < CHECK and now >= checked then return end
  local info = redis.call('INFO', 'replication')
  -- Half of it will do, and keeps the note small enough to be a listpack.
  local id = string.sub(string.match(info, 'master_replid:(%x+)'), 1, 20)
  former = string.match(info, 'master_replid2:(%x+)')
  if id ~= reign then
    reign, since = id, now
    local server = redis.call('INFO', 'server')
    run = string.match(server, 'run_id:(%x+)')
    if not string.find(former, '[^0]') then -- it never was a replica
      since = now - string.match(server, 'uptime_in_seconds:(%d+)') * 1000
    end
    local myid = redis.pcall('CLUSTER', 'MYID')
    node = type(myid) == 'string' and myid or ''
  end
  checked = now
end

-- moved reports whether a history has come here from another node as keys do
-- when their slot moves, with all that was in it: its last frame was kept there
-- when we were already what we are now, so it came neither by replication nor
-- from our disk.
local function moved(stream, from)
  if node == '' or from == node then return false end
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
  return last[1] ~= nil and string.match(last[1][2][1], '^%d+') - since > SKEW
end

-- parse reads field s of a note, if there is one.
local function parse(state)
  if not state then return nil end
  return string.match(state, '(%d+) (%d+) (%d+) (%x+)')
end

-- begin starts an epoch, because there is none or it is another server's.
local function begin(stream, key, epoch, offset, expires)
  local t = redis.call('TIME')
  local now = t[1] * 1000 + math.floor(t[2] / 1000)
  local chain = ''
  if epoch then
    local was = redis.call('HMGET', key, 'n', 'u', 'c')
    -- Nothing is lost when a slot moves, nor when only the replication ID is new.
    local whole = moved(stream, was[1]) or (was[2] == run and not string.find(former, '[^0]'))
    chain = (was[3] or '') .. epoch .. ':' .. offset .. ':' .. (whole and 1 or 0) .. ','
    while #chain > PAST do chain = string.match(chain, '^[^,]*,(.*)$') end
    now = math.max(now, epoch + 1)
  else
    redis.call('DEL', stream) -- what is left of a history whose note is gone
    offset, expires = '0', 0
  end
  epoch = string.format('%.0f', now)
  redis.call('HSET', key, 's', epoch .. ' ' .. offset .. ' ' .. expires .. ' ' .. reign,
    'o', offset, 'c', chain, 'n', node, 'u', run)
  return epoch, offset, offset, expires
end

-- oldest returns the ID at which the offset from would be.
local function oldest(key, epoch, base, from)
  if from <= base then
    local chain = redis.call('HGET', key, 'c') or ''
    for e, last in string.gmatch(chain, '(%d+):(%d+):%d,') do
      if from <= tonumber(last) then return e .. '-' .. from end
    end
  end
  return epoch .. '-' .. from
end

-- forget drops publishers whose latest message is not kept any more.
local function forget(key, from)
  if redis.call('HLEN', key) < MARKS then return end
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local last = string.match(all[i + 1], '^%d+ %d+ (%d+)$')
    if last and #all[i] > 1 and tonumber(last) < from then redis.call('HDEL', key, all[i]) end
  end
end

-- append keeps a frame and publishes it. KEYS: stream, note, channel. ARGV: frame,
-- number of messages, how many to keep, for how many ms, the time in ms since
-- 1970, publisher (may be empty), its stream, its next number, PUBLISH or
-- SPUBLISH, CRC-32C of the frame in 8 hexadecimal digits. Returns epoch, offset and the number of subscribers, or -1 for the
-- last if the frame was there before.
local function append(KEYS, ARGV)
  local stream, key, publisher, now, age = KEYS[1], KEYS[2], ARGV[6], tonumber(ARGV[5]), tonumber(ARGV[4])
  if #publisher == 1 then return redis.error_reply('ERR a publisher of one letter would be taken for a field of the note') end
  whoami(now)
  local note = redis.call('HMGET', key, 's', 'o', publisher)
  local offset, mark = note[2], note[3]
  local epoch, base, expires, old = parse(note[1])
  if old ~= reign then
    epoch, offset, base, expires = begin(stream, key, epoch, offset, expires)
  end
  if mark then
    local number, next = string.match(mark, '(%d+) (%d+)')
    if number == ARGV[7] and tonumber(ARGV[8]) <= tonumber(next) then return {epoch, offset, -1} end
  end
  local last = offset + ARGV[2]
  local id = epoch .. '-' .. last
  if publisher == '' then
    redis.call('HSET', key, 'o', last)
  else
    redis.call('HSET', key, 'o', last, publisher, ARGV[7] .. ' ' .. ARGV[8] .. ' ' .. last)
    if not mark then forget(key, last - ARGV[3] + 1) end
  end
  -- Now and then is enough, since read leaves out what is too much.
  if last % math.max(1, math.floor(ARGV[3] / 8)) < tonumber(ARGV[2]) then
    local from = math.max(1, last - ARGV[3] + 1)
    redis.call('XADD', stream, 'MINID', '~', oldest(key, epoch, tonumber(base), from), id, ARGV[5] .. ' ' .. ARGV[2], ARGV[1])
  else
    redis.call('XADD', stream, id, ARGV[5] .. ' ' .. ARGV[2], ARGV[1])
  end
  if expires - now < age then -- a little longer, so as not to do it each time
    local ttl = math.ceil(age * 9 / 8)
    redis.call('HSET', key, 's', epoch .. ' ' .. base .. ' ' .. string.format('%.0f', now + ttl) .. ' ' .. reign)
    redis.call('PEXPIRE', stream, ttl)
    redis.call('PEXPIRE', key, ttl + DAY)
  end
  if #ARGV[1] <= LONG then
    return {epoch, last, redis.call(ARGV[9], KEYS[3], KEPT .. string.char(#id) .. id .. ARGV[1])}
  end
  -- A long string is hashed byte by byte whenever one is made, which would cost
  -- more than all the rest.
  redis.call(ARGV[9], KEYS[3], ANNOUNCED .. ARGV[10] .. id)
  return {epoch, last, redis.call(ARGV[9], KEYS[3], ARGV[1])}
end

-- read returns a part of the history. KEYS: stream, note. ARGV: epoch and offset
-- after which (0: all), how many messages about, how many are kept, for how
-- many ms, the time, how many bytes about. Returns epoch, offset, the epochs
-- before, 1 if there is more, and for each frame its ID, time and number, frame.
-- Nothing if there is no history.
local function read(KEYS, ARGV)
  local stream, key, now = KEYS[1], KEYS[2], tonumber(ARGV[6])
  whoami(now)
  local note = redis.call('HMGET', key, 's', 'o')
  local offset = note[2]
  local epoch, base, expires, old = parse(note[1])
  if not epoch then return {} end
  if old ~= reign then
    epoch, offset, base = begin(stream, key, epoch, offset, expires)
  end
  local page = {epoch, offset, redis.call('HGET', key, 'c') or '', 0}
  local limit, bytes = tonumber(ARGV[3]), tonumber(ARGV[7])
  if limit == 0 then return page end

  local start = oldest(key, epoch, tonumber(base), math.max(1, offset - ARGV[4] + 1))
  local e, o = string.match(start, '(%d+)-(%d+)')
  local since, sinceOffset = tonumber(ARGV[1]), tonumber(ARGV[2])
  e, o = tonumber(e), tonumber(o)
  if since > e or (since == e and sinceOffset >= o) then
    start = '(' .. ARGV[1] .. '-' .. ARGV[2]
  end
  local old, messages, expired = now - ARGV[5], 0, false
  while true do
    local batch = redis.call('XRANGE', stream, start, '+', 'COUNT', 16)
    for _, entry in ipairs(batch) do
      local time, count = string.match(entry[2][1], '^(%d+) (%d+)$')
      if messages == 0 and tonumber(time) < old then
        expired = true
      elseif messages >= limit or bytes <= 0 then
        page[4] = 1
        return page
      else
        if expired then -- nobody has to look at those again
          redis.call('XTRIM', stream, 'MINID', entry[1])
          expired = false
        end
        messages = messages + count
        bytes = bytes - #entry[2][2]
        page[#page + 1], page[#page + 2], page[#page + 3] = entry[1], entry[2][1], entry[2][2]
      end
    end
    if #batch < 16 then return page end
    start = '(' .. batch[16][1]
  end
end

redis.register_function('fanout_append_VERSION', append)
redis.register_function{function_name = 'fanout_read_VERSION', callback = read, flags = {'allow-oom'}}
