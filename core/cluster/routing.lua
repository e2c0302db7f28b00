-- Which node answers a request: the model's homes, then the other nodes in the order of `homes.py`, which this computes
-- alike. Arguments: the slots as "n1=1,n2=2.5" (name and weight), and the requests past which a home is passed over.

local FNV_OFFSET, FNV_PRIME = 0xcbf29ce484222325, 0x100000001b3
local REMEMBERED = 4096 -- orders, twice; the ids come from strangers, so that there may be no end to them
local CROWDED = 2 -- times the mean of the other nodes: a home with fewer requests is not passed over
local NONE = "none" -- the name of no server: HAProxy takes the least loaded one

local slots_argument, queue_argument = ...
local queue = tonumber(queue_argument)
local homes = Map.new("homes.map", Map._str)
-- Engines: the hexadecimal bytes of each id and alias, with "id:parallel".
local engines = Map.new("engines.map", Map._str)
local LONGEST = 800 -- bytes of an alias
local SEGMENTS = 4 -- of a path, that an alias may take

local function fnv1a(text)
  local value = FNV_OFFSET
  for i = 1, #text do
    value = (value ~ text:byte(i)) * FNV_PRIME
  end
  return value
end

local function finalise(word)
  word = (word ~ (word >> 30)) * 0xbf58476d1ce4e5b9
  word = (word ~ (word >> 27)) * 0x94d049bb133111eb
  return word ~ (word >> 31)
end

local slots, by_name = {}, {}
for name, weight in slots_argument:gmatch("(%w+)=([^,]+)") do
  local slot = { name = name, hash = finalise(fnv1a(name)), weight = tonumber(weight) }
  slots[#slots + 1] = slot
  by_name[name] = slot
end
table.sort(slots, function(one, other) return one.name < other.name end)

-- The numbers of the slots, as the bytes of a string, which takes a tenth of a table's memory.
local function compute_order(model)
  local hash, scores, order = fnv1a(model), {}, {}
  for i, slot in ipairs(slots) do
    local uniform = ((finalise(slot.hash ~ hash) >> 12) + 0.5) * 2.0 ^ -52
    scores[i] = slot.weight / math.log(uniform)
    order[i] = i
  end
  table.sort(order, function(one, other)
    if scores[one] ~= scores[other] then return scores[one] < scores[other] end
    return one < other
  end)
  for i, number in ipairs(order) do order[i] = string.char(number - 1) end
  return table.concat(order)
end

local young, old, young_count = {}, {}, 0

local function order_of(model)
  local order = young[model]
  if order then return order end
  order = old[model] or compute_order(model)
  if young_count >= REMEMBERED then
    old, young, young_count = young, {}, 0
  end
  young[model], young_count = order, young_count + 1
  return order
end

local function server_of(slot)
  slot.server = slot.server or core.backends["nodes"].servers[slot.name]
  return slot.server
end

local function is_up(txn, slot)
  -- HAProxy overwrites the slash in the argument, so it must be a new string each time.
  return txn.f:srv_is_up("nodes/" .. slot.name) == 1
end

-- How many requests a slot has; nil if it takes none.
local function requests_at(txn, slot)
  if not is_up(txn, slot) or server_of(slot):is_draining() then return nil end
  return server_of(slot):get_cur_sess()
end

-- The home with the fewest requests, and how many it has. Without an entry, the first in the order is the home.
local function best_home(txn, model)
  local best, fewest = nil, math.huge
  for name in (homes:lookup(model) or ""):gmatch("%w+") do
    local requests = by_name[name] and requests_at(txn, by_name[name])
    if requests and requests < fewest then best, fewest = by_name[name], requests end
  end
  if best then return best, fewest end
  local order = order_of(model)
  for i = 1, #order do
    local slot = slots[order:byte(i) + 1]
    local requests = requests_at(txn, slot)
    if requests then return slot, requests end
  end
end

-- The requests past which a home with so many is passed over. Where all nodes are busy, none is relieved by another one
-- that loads its models, too: these loads would make all of them busier.
local function limit_for(txn, requests)
  local total, others = -requests, -1
  for _, slot in ipairs(slots) do
    local there = requests_at(txn, slot)
    if there then total, others = total + there, others + 1 end
  end
  return others > 0 and math.max(queue, CROWDED * total / others) or queue
end

local function pick(txn, model, parallel)
  local least = math.max(queue, parallel)
  local home, requests = best_home(txn, model)
  if not home or requests < least then return home end
  local limit = math.max(least, limit_for(txn, requests))
  if requests < limit then return home end
  local order = order_of(model)
  for i = 1, #order do
    local slot = slots[order:byte(i) + 1]
    local there = requests_at(txn, slot)
    if there and there < limit then return slot end
  end
  return nil
end

-- The id of the engine with this id or alias, and its requests at a time; nil if there is none.
local function engine_of(name)
  if #name > LONGEST then return nil end
  local found = engines:lookup((name:gsub(".", function(byte) return string.format("%02x", byte:byte()) end)))
  if found then return found:match("^(.*):(%d+)$") end
end

core.register_action("route", { "http-req" }, function(txn)
  local model = txn:get_var("txn.model")
  if not model or model == "" then
    txn:set_var("txn.node", NONE)
    return
  end
  local engine, parallel = engine_of(model)
  local slot = pick(txn, model, tonumber(parallel) or 0)
  txn:set_var("txn.node", slot and slot.name or NONE)
  txn:set_var("txn.engine", engine ~= nil)
end, 0)

-- The node that `X-Residency-Node` names, unless it is down.
core.register_action("route_to_named", { "http-req" }, function(txn)
  local slot = by_name[txn:get_var("txn.named") or ""]
  txn:set_var("txn.node", slot and is_up(txn, slot) and slot.name or NONE)
end, 0)

-- The model's id: that of the engine which has the text as an alias, else the text; "" for what can be none.
local function model_id(text)
  local engine = engine_of(text)
  return engine or #text <= 64 and text:match("^[A-Za-z0-9][A-Za-z0-9._-]*$") or ""
end

core.register_converters("model_id", model_id)

local function after_holder(path)
  for _, holder in ipairs({ "/v2/models/", "/models/", "/upstream/" }) do
    if path:sub(1, #holder) == holder then return path:sub(#holder + 1) end
  end
end

-- The model's id in a path, which a strategy's name may precede. An alias may take several segments.
core.register_converters("path_model", function(path)
  local names, name = {}, nil
  for segment in (after_holder(path) or after_holder(path:match("^/[^/]+(/.*)") or "") or ""):gmatch("[^/]+") do
    name = name and name .. "/" .. segment or segment
    names[#names + 1] = name
    if #names == SEGMENTS then break end
  end
  for i = 1, #names do -- as a node finds them: the shortest first
    local engine = engine_of(names[i])
    if engine then return engine end
  end
  return names[1] and model_id(names[1]) or ""
end)

-- The field `model` of a form, or "". A file before it may be longer than what is read.
core.register_converters("form_model", function(body)
  local _, name = body:find('[ ;]name="?model"?\r\n')
  local _, head = body:find("\r\n\r\n", name and name - 1 or #body, true)
  return head and body:match("^([^\r\n]*)\r\n", head + 1) or ""
end)
