-- include queue/take-jobs
local tokens = {}
for k = 1, tonumber(ARG.count) do tokens[k] = ARG.token end
local jobs, nextDelayed = takeJobs(ARG.queue, tokens, tonumber(ARG.nowMs), ARG.lockMs)
if not jobs then return false end
return {jobs, nextDelayed}
