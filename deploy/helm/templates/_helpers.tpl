{{- define "whisper.name" -}}
{{- $name := .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- if contains .Chart.Name $name }}{{ $name }}{{ else }}{{ printf "%s-%s" $name .Chart.Name }}{{ end -}}
{{- end }}

{{- define "whisper.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "whisper.selector" . }}
{{- end }}

{{- define "whisper.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "whisper.account" -}}
{{ .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "whisper.name" .) "default") }}
{{- end }}

{{- define "whisper.image" -}}
{{- $own := .own | default dict -}}
{{- $repository := $own.repository | default .root.Values.image.repository -}}
{{- printf "%s:%s" $repository ($own.tag | default .root.Values.image.tag | default .root.Chart.AppVersion) -}}
{{- end }}

{{- define "whisper.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "whisper.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "whisper.env" -}}
{{- range $name, $value := .Values.settings }}
- name: {{ printf "WHISPER_API_%s" (upper $name) }}
  value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}
{{- end }}
{{- with .Values.database.existingSecret }}
- name: WHISPER_API_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.Values.database.key }}
{{- end }}
{{- with .Values.storage.url }}
- name: WHISPER_API_STORAGE_URL
  value: {{ . | quote }}
- name: AWS_DEFAULT_REGION
  value: {{ $.Values.storage.region | quote }}
{{- end }}
{{- with .Values.storage.endpoint }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.storage.existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: access_key_id
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: secret_access_key
{{- end }}
{{- end }}

{{- define "whisper.check" -}}
{{- if .Values.worker.enabled }}
{{- if not .Values.database.existingSecret }}{{ fail "worker.enabled needs database.existingSecret" }}{{ end }}
{{- if not .Values.storage.url }}{{ fail "worker.enabled needs storage.url" }}{{ end }}
{{- else }}
{{- if gt (int .Values.api.replicas) 1 }}{{ fail "api.replicas above 1 needs worker.enabled" }}{{ end }}
{{- if .Values.keda.enabled }}{{ fail "keda.enabled needs worker.enabled" }}{{ end }}
{{- end }}
{{- end }}
