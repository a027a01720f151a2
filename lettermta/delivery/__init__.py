"""When and where: schedule, lanes, destinations, MX, the attempt and its outcome for each recipient."""
