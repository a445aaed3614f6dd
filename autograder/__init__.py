"""The graders' side of sslcourse: intake, sandbox, worker, checks, reports and front ends."""
