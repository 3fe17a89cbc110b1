-- SPDX-License-Identifier: Apache-2.0
-- wrk's requests: hit SIZE URLS | new SIZE TAG
-- "hit" walks over URLS pages, "new" asks for a URL never asked for before.
local number = 0

function setup(thread)
    thread:set("number", number)
    number = number + 1
end

function init(args)
    local path = "/" .. args[2] .. "/"
    if args[1] == "hit" then
        local urls, page = tonumber(args[3]), number
        local ready = {}
        for n = 0, urls - 1 do
            ready[n] = wrk.format("GET", path .. n)
        end
        request = function()
            page = (page + 1) % urls
            return ready[page]
        end
    else
        local page = 0
        local front = path .. args[3] .. "-" .. number .. "-"
        request = function()
            page = page + 1
            return wrk.format("GET", front .. page)
        end
    end
end

function done(summary, latency)
    local e = summary.errors
    io.write(string.format("RESULT %d %d %d\n", summary.requests,
        summary.duration,
        e.connect + e.read + e.write + e.status + e.timeout))
end
