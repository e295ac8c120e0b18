-- fanout: rooms with a history. See WIRE.md of github.com/fanoutgo/fanout.
--
-- A history is a stream, whose entries are frames, and a note beside it. The ID
-- of an entry is the position of the frame's last message: epoch-offset. Its one
-- field is named by the time in ms since 1970 and the number of messages.
--
-- A later format of the stream begins the names of these fields with "v2 ".
--
-- The note is a hash. s: "v1 epoch base expires reign", where v1 is the format of
-- stream and note, base the offset at which the epoch began, expires when the
-- stream does, in ms, and reign the first 20 digits of the replication ID of the
-- server that began the epoch;
-- o: the offset of the last message; c: the epochs before, "epoch:last:whole,"
-- each; n, u: the node and the run of that server; t: where the history was a
-- while ago, "time:offset," each; and for each publisher how far it has come:
-- "stream next offset".
--
-- All times are the server's own. Arguments and keys are checked before anything
-- is written. append is called for every frame: what can be left out there is.
--
-- Hubs make two things of this text: a library of functions, and where servers
-- have none, scripts for EVALSHA: see library.go. What is remembered between two
-- calls only saves time, since a script forgets it.

local KEPT = '\250fo\1\2'
local ANNOUNCED = '\250fo\1\3'
local LONG = 2048 -- bytes of a frame above which it is announced, and sent as it is
local DAY = 86400000
local CHECK = 200  -- ms after which we look again who we are
local PAST = 1600  -- bytes of past epochs that are remembered
local SKEW = 1000  -- ms by which clocks of servers may differ, and then some
local MARKS = 64   -- fields of a note above which old publishers are forgotten
local FORMAT = 'v1 ' -- of a history: begins field s of its note
local MOST = 9007199254740991 -- 2^53-1: larger numbers are not exact here
local MILLION = 1000000 -- more than a history keeps, or a frame has, of messages
local LONGEST = 400 * DAY -- more than a history keeps its messages for
local PARKED = ':moved' -- ends the name of the key of a parked note: see open
local PARKING = 600000 -- ms for which a note is parked
local TAG = '^[^{]*{([^}]+)}' -- what names of one slot have in common
local MEMO = 100   -- of each kind of thing are remembered: more cost more than they save

-- guarded is Lua's own pcall, which below is the name of redis.pcall.
local function guarded(f) return pcall(f) end

-- They are not there while the library is loaded, and as locals they cost less.
local call, pcall, find, match, format, floor, max

local function prepare()
  call, pcall = redis.call, redis.pcall
  find, match, format, floor, max = string.find, string.match, string.format, math.floor, math.max
end

-- refuse ends a call with an error reply. Nothing has been written.
local function refuse(what) error({err = what}) end

-- broken ends a call because the keys contain what we cannot have written.
local function broken(what) refuse('FANOUT-BROKEN ' .. what) end

-- newer ends a call if a text says that the history has another format: that of a
-- later release, whose keys are left as they are.
local function newer(text)
  local other = match(text or '', '^v(%d+) ')
  if other and other ~= '1' then
    broken('the history has format ' .. other .. ' of a later release, and this one reads format 1')
  end
end

-- failed ends a call in which a command has failed before anything was written.
local function failed(err)
  if find(err, '^WRONGTYPE') then broken('a key is of another type') end
  refuse(err)
end

-- try calls a command that the contents of a key can make fail.
local function try(...)
  local reply = pcall(...)
  if type(reply) == 'table' and reply.err then failed(reply.err) end
  return reply
end

-- whole returns the number that a text is, if that is an integer in a range.
local function whole(text, least, most)
  local n = tonumber(text)
  if n and n >= least and n <= most and n % 1 == 0 then return n end
end

-- decimal writes an integer as Lua by itself does only up to 14 digits.
local function decimal(n)
  if n < 1e14 then return n end
  return format('%.0f', n)
end

local function clock()
  if not call then prepare() end
  local t = call('TIME')
  return t[1] * 1000 + floor(t[2] / 1000)
end

-- Who this server is. Its replication ID changes whenever it may have lost
-- something: when it starts, and when it becomes a primary. These live in the
-- memory of the server alone, so a replica that takes over has its own.
local reign, former, node, run, checked
local since -- it has been what it is since then, or for longer
local told  -- the caller has said who the server is: 'known', or 'unknown'

-- whoami asks for the replication ID, unless the caller has said it.
local function whoami(now)
  if told or checked and now - checked < CHECK and now >= checked then return end
  local info = call('INFO', 'replication')
  if find(info, 'role:slave', 1, true) then refuse('READONLY the server is a replica') end
  -- Half of it will do, and keeps the note small enough to be a listpack.
  local id = string.sub(match(info, 'master_replid:(%x+)'), 1, 20)
  former = string.sub(match(info, 'master_replid2:(%x+)'), 1, 20)
  if id ~= reign then reign, since, node = id, now, nil end
  checked = now
end

-- introduce asks for what is needed of the server only when an epoch begins.
local function introduce(now)
  if node then return end
  local server = call('INFO', 'server')
  run = match(server, 'run_id:(%x+)')
  if not find(former, '[^0]') then -- it never was a replica
    since = now - match(server, 'uptime_in_seconds:(%d+)') * 1000
  end
  local myid = pcall('CLUSTER', 'MYID')
  if type(myid) == 'string' then
    node = myid
  elseif find(myid.err, 'cluster support disabled', 1, true) then
    node = ''
  else -- it does not say, and the run is one of a node
    node = run
  end
end

-- listen takes over what the caller says about the server, where scripts may not
-- ask: "replication-ID former-ID run node since", each but the first may be -.
-- Where nobody knows who the server is it is "? since". Then since is when the
-- caller's connection was made, and an epoch that began before that is over.
local function listen(text)
  local at = match(text, '^%? (%d+)$')
  if at then
    told, reign, former, run, node, since = 'unknown', '0', '', '', '', whole(at, 0, MOST)
    return
  end
  told = 'known'
  reign, former, run, node, since = match(text, '^(%x+) ([%x-]+) ([%x-]+) ([%w-]+) (%d+)$')
  if not reign then refuse('ERR what is said about the server cannot be read') end
  if former == '-' then former = '' end
  if run == '-' then run = '' end
  if node == '-' then node = '' end
  since = tonumber(since)
end

-- states has what fields s of notes say, since reading them takes its time.
local states, stated = {}, 0

-- position returns what fields s and o of a note say: epoch, which is a text,
-- base, expires, reign and offset. Nothing if there is no note.
local function position(text, at, now)
  if not text then
    if at then broken('the note has an offset and no epoch') end
    return nil
  end
  local epoch, base, expires, old, begun
  local state = states[text]
  if state then
    epoch, base, expires, old, begun = state[1], state[2], state[3], state[4], state[5]
  else
    newer(text)
    epoch, base, expires, old = match(text, '^v1 (%d+) (%d+) (%d+) (%x+)$')
    if not epoch then broken('the note cannot be read') end
    base, expires, begun = tonumber(base), tonumber(expires), tonumber(epoch)
    stated = stated + 1
    if stated > 10 * MEMO then states, stated = {}, 1 end
    if stated <= MEMO then states[text] = {epoch, base, expires, old, begun} end
  end
  local offset = tonumber(at)
  if not (offset and offset >= base and offset <= MOST and offset % 1 == 0) then
    broken('the note has no offset, or none after the beginning of its epoch')
  end
  if begun > now + DAY or begun < 1 then broken('the epoch is 0, or more than a day ahead of the clock') end
  if expires > now + 2 * LONGEST then expires = 0 end
  if told == 'unknown' then
    reign = old
    if begun <= since + SKEW then old = '' end
  end
  return epoch, base, expires, old, offset
end

-- identify reads the ID of an entry, if it is a position.
local function identify(id)
  local epoch, offset = match(id, '^(%d+)%-(%d+)$')
  return whole(epoch, 1, MOST), whole(offset, 1, MOST)
end

-- last returns the position of the last entry of a stream and its time, or false
-- if that is none that we can have written. Nothing if there is no entry.
local function last(stream)
  local entry = try('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  if not entry then return nil end
  local epoch, offset = identify(entry[1])
  local time = tonumber(match(entry[2][1] or '', '^(%d+) %d+$'))
  if not (epoch and offset and time) then
    newer(entry[2][1])
    return false
  end
  return epoch, offset, time
end

-- fields makes a table of names and values of a list of them.
local function fields(list)
  local of = {}
  for i = 1, #list - 1, 2 do of[list[i]] = list[i + 1] end
  return of
end

-- failedOver reports whether a replica may have taken over from a node before
-- the slot came here: the node is down, or a replica, or not in the cluster.
-- A node that gave us its last slot is a replica of ours. Where the cluster does
-- not say who is in it, we take it that no node has failed.
local function failedOver(from)
  local shards = pcall('CLUSTER', 'SHARDS')
  if shards.err then return false end
  local known, there = false, false
  for _, shard in ipairs(shards) do
    local primary, has = nil, nil
    for _, one in ipairs(fields(shard).nodes or {}) do
      local n = fields(one)
      if n.role == 'master' and n.health == 'online' then primary = n.id end
      has, known = has or n.id == from, known or n.id == node
    end
    there = there or has and (primary == from or primary == node)
  end
  return known and not there
end

-- moved reports whether a history has come here from another node as keys do
-- when their slot moves, with all that was in it: it is not that of the primary
-- whose replica we were, and its last frame was kept there when we were already
-- what we are now, so it came neither by replication nor from our disk. Nor did
-- it come from a replica of that node which has taken over.
local function moved(from, old, time)
  if node == '' or from == node or former == old then return false end
  return time and time - since > SKEW and not failedOver(from)
end

-- past returns a chain of past epochs if it is one.
local function past(chain)
  chain = chain or ''
  if string.gsub(chain, '%d+:%d+:[01],', '') ~= '' then broken('the past epochs cannot be read') end
  return chain
end

-- begin starts an epoch, because there is none or it is another server's. It
-- returns the epoch, its base, and whether there is a stream. If there is one it
-- expires when it would have: open has to know that until renew is called.
local function begin(stream, key, now, epoch, offset, old, expires)
  introduce(now)
  if told == 'unknown' then now = max(now, since + SKEW + 1) end
  local chain = ''
  local e, o, time = last(stream)
  if epoch then
    if e == false or e and (e > tonumber(epoch) or o > offset) then broken('the stream goes on beyond the note') end
    local was = call('HMGET', key, 'n', 'u', 'c')
    -- Nothing is lost when a slot moves, nor when only the replication ID is new.
    local complete = moved(was[1], old, time) or (was[2] == run and run ~= '' and not find(former, '[^0]'))
    chain = past(was[3]) .. epoch .. ':' .. decimal(offset) .. ':' .. (complete and 1 or 0) .. ','
    while #chain > PAST do chain = match(chain, '^[^,]*,(.*)$') end
    now = max(now, epoch + 1)
  else
    offset = 0
    -- Where a memory policy has taken the note alone, the stream says where the
    -- history was, but not who has had it.
    if e and e <= now + DAY then
      offset, now = o, max(now, e + 1)
      chain = decimal(e) .. ':' .. decimal(o) .. ':0,'
    elseif e ~= nil then
      call('DEL', stream)
      e = nil
    end
  end
  epoch = format('%.0f', now)
  local text = decimal(offset)
  expires = e and expires or 0
  call('HSET', key, 's', FORMAT .. epoch .. ' ' .. text .. ' ' .. decimal(expires) .. ' ' .. reign,
    'o', text, 'c', chain, 'n', node, 'u', run)
  return epoch, offset, e ~= nil
end

-- oldest returns the ID at which the offset from would be.
local function oldest(key, epoch, base, from)
  if from <= base then
    local chain = call('HGET', key, 'c') or ''
    for e, last in string.gmatch(chain, '(%d+):(%d+):%d,') do
      if from <= tonumber(last) then return e .. '-' .. decimal(from) end
    end
  end
  return epoch .. '-' .. decimal(from)
end

-- forget drops publishers whose latest message is no longer kept.
local function forget(key, from)
  if call('HLEN', key) < MARKS then return end
  local all = call('HGETALL', key)
  for i = 1, #all, 2 do
    local last = tonumber(match(all[i + 1], '^%d+ %d+ (%d+)$'))
    if #all[i] > 1 and not (last and last >= from) then call('HDEL', key, all[i]) end
  end
end

-- renew has the keys live for longer, and drops what is too old, of which field
-- t says where it ends. It is called whenever an eighth of the age is over, and
-- when there is a stream without a note.
local function renew(stream, key, epoch, base, now, age, offset, fresh)
  local ttl = math.ceil(age * 9 / 8)
  local times, from = {}, nil
  for time, at in string.gmatch(not fresh and call('HGET', key, 't') or '', '(%d+):(%d+),') do
    if tonumber(time) >= now - age then
      if #times < 16 then times[#times + 1] = time .. ':' .. at .. ',' end
    else
      from = whole(at, 0, offset) or from
    end
  end
  times[#times + 1] = decimal(now) .. ':' .. decimal(offset) .. ','
  call('HSET', key, 's', FORMAT .. epoch .. ' ' .. decimal(base) .. ' ' .. decimal(now + ttl) .. ' ' .. reign,
    't', table.concat(times))
  call('PEXPIRE', stream, ttl)
  call('PEXPIRE', key, ttl + DAY)
  if from then call('XTRIM', stream, 'MINID', '~', oldest(key, epoch, base, from + 1)) end
end

-- open is for a slot that is moving, when a call names the note alone, which may
-- be at another node than the stream: then each is given only what it has. The
-- note has to follow a stream that is not here. The caller brings it to the other
-- node, in steps of which any may be repeated, since replies may be lost:
-- 1. we return the note;
-- 2. a call with that as its seed parks it at the other node, in a key of its own,
--    because a note that is at both nodes cannot be moved with the slot;
-- 3. a call with any seed deletes it here;
-- 4. the next call finds none here, goes to the other node, and adopts it there.
local function open(stream, key, now, age, seed)
  local parked = stream .. PARKED
  if key == parked then
    call('DEL', parked)
    for i = 1, #seed, 2 do call('HSET', parked, seed[i], seed[i + 1]) end
    call('PEXPIRE', parked, PARKING)
    return {'MOVED', {}}
  end
  local known = try('HGET', key, 's')
  local there = pcall('XREVRANGE', stream, '+', '-', 'COUNT', 1)
  if there.err and find(there.err, 'non local key', 1, true) then
    if #seed == 0 then return {'MOVED', call('HGETALL', key)} end
    call('DEL', key)
    return {'MOVED', {}}
  end
  if known then
    local _, _, expires = position(known, call('HGET', key, 'o'), now)
    if #there == 0 and expires > now then refuse('TRYAGAIN the stream of the history is at another node') end
    pcall('DEL', parked) -- a hub was late to park it
  end
end

-- adopt gives a history that has no note the one that is parked, and reports
-- whether it did. A parked note is dropped if the history has gone on since.
local function adopt(stream, key, age)
  local parked = stream .. PARKED
  local note = pcall('HGETALL', parked)
  if note.err or #note == 0 then return false end
  call('DEL', parked)
  local e, o = last(stream)
  if e == false or e and o ~= tonumber(fields(note).o) then return false end
  for i = 1, #note, 2 do call('HSET', key, note[i], note[i + 1]) end
  call('PEXPIRE', key, age + DAY)
  return true
end

-- tail returns the elements of a list from one on, as many as are whole pairs.
local function tail(list, from)
  local rest = {}
  for i = from, #list - 1, 2 do rest[#rest + 1], rest[#rest + 2] = list[i], list[i + 1] end
  return rest
end

-- together notes of streams which channel is in their slot.
local together, noted = {}, 0

local function sameSlot(stream, channel, now)
  if (match(channel, TAG) or channel) ~= match(stream, TAG) then
    introduce(now)
    if node ~= '' then refuse('ERR the channel is not in the slot of the keys') end
  end
  noted = noted + 1
  if noted > 10 * MEMO then together, noted = {}, 1 end
  if noted <= MEMO then together[stream] = channel end
end

-- seen has the numbers that texts are, of arguments that are the same in most
-- calls.
local seen, texts = {}, 0

local function natural(text)
  local n = whole(text, 1, LONGEST)
  if n and not find(text, '%D') then
    if texts >= MEMO then seen, texts = {}, 0 end
    seen[text], texts = n, texts + 1
    return n
  end
end

-- check returns the numbers among the arguments of append, or ends the call.
local function check(ARGV, stream, now)
  local a, b, c, number = ARGV[2], ARGV[3], ARGV[4], 0
  local count, keep, age = seen[a] or natural(a), seen[b] or natural(b), seen[c] or natural(c)
  if not (count and keep and age) or count > MILLION or keep > MILLION then
    refuse('ERR whole numbers are needed: of messages, of those kept (1 to 1000000), of ms (to 400 days)')
  end
  local publisher, command, channel = ARGV[5], ARGV[8], ARGV[9]
  if publisher ~= '' then
    if #publisher == 1 then refuse('ERR a publisher of one letter would be taken for a field of the note') end
    number = tonumber(ARGV[7])
    if find(ARGV[6] .. ARGV[7], '%D') or ARGV[6] == '' or not (number and number >= 1 and number <= MOST) then
      refuse('ERR the numbers of a publisher are whole numbers below 2^53')
    end
  end
  if command ~= 'SPUBLISH' and command ~= 'PUBLISH' or not channel then
    refuse('ERR a frame is sent by PUBLISH or SPUBLISH to a channel')
  end
  if command == 'SPUBLISH' and together[stream] ~= channel then sameSlot(stream, channel, now) end
  if #ARGV[1] > LONG and not find(ARGV[10] or '', '^%x%x%x%x%x%x%x%x$') then
    refuse('ERR a frame of more than 2048 bytes needs its CRC-32C in 8 hexadecimal digits')
  end
  return count, keep, age, number
end

-- append keeps a frame and publishes it. KEYS: stream, note. ARGV: frame, number
-- of messages, how many to keep, for how many ms, publisher (may be empty), its
-- stream, its next number, PUBLISH or SPUBLISH, channel, CRC-32C of the frame in
-- 8 hexadecimal digits if it is longer than LONG. Returns epoch, offset and the
-- number of subscribers, or -1 for the last if the frame was there before.
-- Where the slot is open, KEYS is the note, and ARGV has the stream and the seed
-- as well: see open.
local function append(KEYS, ARGV)
  local stream, key = KEYS[1], KEYS[2]
  if not key then stream, key = ARGV[11], KEYS[1] end
  local now = clock()
  whoami(now)
  local count, keep, age, number = check(ARGV, stream, now)
  local frame, publisher = ARGV[1], ARGV[5]
  if not KEYS[2] then
    local other = open(stream, key, now, age, tail(ARGV, 12))
    if other then return other end
  end
  local note = pcall('HMGET', key, 's', 'o', publisher)
  if note.err then failed(note.err) end
  if not note[1] and adopt(stream, key, age) then note = call('HMGET', key, 's', 'o', publisher) end
  local mark = note[3]
  local epoch, base, expires, old, offset = position(note[1], note[2], now)
  if mark and epoch then
    local counter, next = match(mark, '^(%d+) (%d+) ')
    if counter == ARGV[6] and number <= tonumber(next) and whole(match(mark, '(%d+)$'), 1, offset) then
      if old ~= reign then epoch = begin(stream, key, now, epoch, offset, old, expires) end
      return {epoch, decimal(offset), -1}
    end
  end
  if (offset or 0) > MOST - count then broken('the offset is too large') end
  local there = true -- the stream, as far as we know
  if old ~= reign then
    if epoch then
      epoch, base, there = begin(stream, key, now, epoch, offset, old, expires)
    else
      epoch, base, there = begin(stream, key, now)
      offset, mark = base, nil
    end
    expires = 0
  end
  local at = offset + count
  local text = decimal(at) .. '' -- a string, once for all
  local id = epoch .. '-' .. text
  local field = now .. ' ' .. ARGV[2]
  local added
  if not there then
    added = pcall('XADD', stream, id, field, frame)
  elseif at % max(1, floor(keep / 8)) < count then
    -- Now and then is enough, since read leaves out what is too much.
    local from = max(1, at - keep + 1)
    added = pcall('XADD', stream, 'NOMKSTREAM', 'MINID', '~', oldest(key, epoch, base, from), id, field, frame)
  else
    added = pcall('XADD', stream, 'NOMKSTREAM', id, field, frame)
  end
  if not added then -- it has expired, or was taken
    added = pcall('XADD', stream, id, field, frame)
    expires = 0
  end
  if type(added) == 'table' then
    if find(added.err, '^WRONGTYPE') or find(added.err, '^ERR The ID') then
      broken('the stream does not take the next entry: ' .. added.err)
    end
    refuse(added.err)
  end
  if publisher == '' then
    call('HSET', key, 'o', text)
  else
    call('HSET', key, 'o', text, publisher, ARGV[6] .. ' ' .. ARGV[7] .. ' ' .. text)
    if not mark then forget(key, at - keep + 1) end
  end
  if expires - now < age then -- a little longer, so as not to do it each time
    renew(stream, key, epoch, base, now, age, at, not there)
  end
  local command, channel = ARGV[8], ARGV[9]
  if #frame <= LONG then
    return {epoch, text, call(command, channel, KEPT .. string.char(#id) .. id .. frame)}
  end
  -- A long string is hashed byte by byte whenever one is made, which would cost
  -- more than all the rest.
  call(command, channel, ANNOUNCED .. ARGV[10] .. id)
  return {epoch, text, call(command, channel, frame)}
end

-- read returns a part of the history. KEYS: stream, note. ARGV: epoch and offset
-- after which (0: all), how many messages about, how many are kept, for how
-- many ms, how many bytes about. Returns epoch, offset, the epochs before, 1 if
-- there is more, and for each frame its ID, its age in ms and number of messages,
-- and the frame. Nothing if there is no history. Where the slot is open, KEYS is
-- the note, and ARGV has the stream and the seed as well: see open.
local function read(KEYS, ARGV)
  local stream, key = KEYS[1], KEYS[2]
  if not key then stream, key = ARGV[7], KEYS[1] end
  local now = clock()
  whoami(now)
  local limit, bytes = whole(ARGV[3], 0, MOST), whole(ARGV[6], 1, MOST)
  local keep, age = whole(ARGV[4], 1, MILLION), whole(ARGV[5], 1, LONGEST)
  local after, afterOffset = tonumber(ARGV[1]), tonumber(ARGV[2])
  if not (limit and keep and age and bytes and after and afterOffset) or find(ARGV[1] .. ARGV[2], '%D') then
    refuse('ERR whole numbers are needed: epoch, offset, limit, messages kept, ms, bytes')
  end
  if not KEYS[2] then
    local other = open(stream, key, now, age, tail(ARGV, 8))
    if other then return other end
  end
  if told then try('HDEL', key, '-') end -- which a replica refuses
  local note = try('HMGET', key, 's', 'o', 'c')
  if not note[1] and adopt(stream, key, age) then note = call('HMGET', key, 's', 'o', 'c') end
  local epoch, base, expires, old, offset = position(note[1], note[2], now)
  local chain = past(note[3])
  if not epoch then
    if not last(stream) then return {} end
    epoch, base = begin(stream, key, now)
    offset, chain = base, call('HGET', key, 'c')
    renew(stream, key, epoch, base, now, age, offset, true)
  elseif old ~= reign then
    epoch, base = begin(stream, key, now, epoch, offset, old, expires)
    chain = call('HGET', key, 'c')
  end
  local page = {epoch, decimal(offset), chain, 0}
  if limit == 0 then return page end

  local start = oldest(key, epoch, base, max(1, offset - keep + 1))
  local e, o = match(start, '(%d+)-(%d+)')
  e, o = tonumber(e), tonumber(o)
  if after > e or (after == e and afterOffset >= o) then
    start = '(' .. ARGV[1] .. '-' .. ARGV[2]
  end
  local messages, expired = 0, false
  while true do
    local batch = try('XRANGE', stream, start, '+', 'COUNT', 16)
    for _, entry in ipairs(batch) do
      local time, count = match(entry[2][1] or '', '^(%d+) (%d+)$')
      count = whole(count, 1, MILLION)
      if not count or #entry[2] ~= 2 then
        newer(entry[2][1])
        broken('an entry of the stream is no frame: ' .. entry[1])
      end
      local old = max(0, now - time)
      if messages == 0 and old > age then
        expired = true
      elseif messages >= limit or bytes <= 0 then
        page[4] = 1
        return page
      else
        if expired then -- nobody has to look at those again
          call('XTRIM', stream, 'MINID', entry[1])
          expired = false
        end
        messages = messages + count
        bytes = bytes - #entry[2][2]
        page[#page + 1], page[#page + 2], page[#page + 3] = entry[1], decimal(old) .. ' ' .. count, entry[2][2]
      end
    end
    if #batch < 16 then return page end
    start = '(' .. batch[16][1]
  end
end

-- probe returns the time, and 1 if scripts may ask who the server is.
local function probe()
  local now = decimal(clock())
  local info = pcall('INFO', 'replication')
  local known = type(info) == 'string' and match(info, 'master_replid:%x+') and match(info, 'master_replid2:%x+')
  if known then
    info = pcall('INFO', 'server')
    known = type(info) == 'string' and match(info, 'run_id:%x+') and match(info, 'uptime_in_seconds:%d+')
  end
  return {now .. '', known and 1 or 0}
end

-- script calls a function as a script. The last argument says who the server is;
-- it is empty if scripts may ask. Errors are returned rather than raised, which
-- all servers understand.
local function script(f, KEYS, ARGV)
  prepare()
  local done, reply = guarded(function()
    local who = table.remove(ARGV) or ''
    if who ~= '' then listen(who) end
    return f(KEYS, ARGV)
  end)
  if done then return reply end
  if type(reply) == 'table' then reply = reply.err end
  return {err = tostring(reply) .. ' script: fanout'}
end
