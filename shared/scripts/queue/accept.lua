-- include queue/accept-all
return acceptAll()
