@echo off
rem One sync, for Windows' task scheduler: tries again where it failed for a reason that may pass, never overlaps itself,
rem and logs. It asks a Syncline elsewhere, through its API, for the run and follows it to its end:
rem
rem     set SYNCLINE_URL=https://sync.example.com
rem     set SYNCLINE_TOKEN_FILE=C:\syncline\token.txt
rem     C:\syncline\sync-cron.bat agency
rem
rem Arguments are sources. Ends with the exit code of the last attempt: 0 done, 1 failed, 2 configuration, 3 refused by
rem a guard; 75 where the sync before is still under way. Variables, as in sync-cron.sh: SYNCLINE_BIN,
rem SYNCLINE_ATTEMPTS (3), SYNCLINE_DELAY (30 seconds, doubled each time); SYNCLINE_LOG and SYNCLINE_LOCK, files that are in
rem %LOCALAPPDATA%\syncline by default.
setlocal EnableExtensions
if not defined SYNCLINE_BIN set "SYNCLINE_BIN=syncline"
if not defined SYNCLINE_ATTEMPTS set "SYNCLINE_ATTEMPTS=3"
if not defined SYNCLINE_DELAY set "SYNCLINE_DELAY=30"
rem Not in TEMP: everybody may write in that of services, and whoever holds the lock keeps this from ever running.
set "PLACE=%LOCALAPPDATA%\syncline"
if not exist "%PLACE%" mkdir "%PLACE%"
if not defined SYNCLINE_LOG set "SYNCLINE_LOG=%PLACE%\sync-cron.log"
if not defined SYNCLINE_LOCK set "SYNCLINE_LOCK=%PLACE%\sync-cron.lock"
if not defined SYNCLINE_URL (
    call :say SYNCLINE_URL is not set
    exit /b 2
)

set "ARGUMENTS=trigger %SYNCLINE_URL% --wait"
if defined SYNCLINE_TOKEN_FILE set ARGUMENTS=%ARGUMENTS% --token-file "%SYNCLINE_TOKEN_FILE%"
:sources
if not "%~1"=="" (
    set ARGUMENTS=%ARGUMENTS% --source "%~1"
    shift
    goto sources
)

rem The lock is a file that stays open for writing: it goes with this process, however it ends.
set "CODE=75"
call :attempts >>"%SYNCLINE_LOCK%" 2>nul
if "%CODE%"=="75" call :say the sync before is still under way
exit /b %CODE%

:attempts
set "ATTEMPT=1"
set "DELAY=%SYNCLINE_DELAY%"
:again
call :say attempt %ATTEMPT% of %SYNCLINE_ATTEMPTS%
cmd /d /s /c ""%SYNCLINE_BIN%" %ARGUMENTS%" >>"%SYNCLINE_LOG%" 2>&1
set "CODE=%ERRORLEVEL%"
if "%CODE%"=="0" (
    call :say done
    exit /b 0
)
if not "%CODE%"=="1" goto giveup
if %ATTEMPT% GEQ %SYNCLINE_ATTEMPTS% goto giveup
call :say exit code %CODE%; again in %DELAY% s
rem ping waits where timeout cannot: without a console.
set /a PINGS=DELAY+1
ping -n %PINGS% 127.0.0.1 >nul
set /a DELAY=DELAY*2
set /a ATTEMPT=ATTEMPT+1
goto again

:giveup
call :say gave up with exit code %CODE%
exit /b %CODE%

:say
>>"%SYNCLINE_LOG%" echo %DATE% %TIME% sync-cron: %*
exit /b 0
